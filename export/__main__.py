# SPDX-License-Identifier: Apache-2.0
"""Runs the command line: `python -m keras_dynfilter.export`."""

import sys

from keras_dynfilter.export import cli, supervisor


def main() -> int:
    """Parses the command line, and exports in a child process. Returns the exit status."""
    args = cli.parse()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names may hold any character
    return supervisor.supervised(lambda: cli.run(args))


if __name__ == "__main__":
    sys.exit(main())
