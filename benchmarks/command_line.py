# SPDX-License-Identifier: Apache-2.0
"""Command lines and result files of the benchmarks."""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator


def new_parser(module: str, doc: str) -> argparse.ArgumentParser:
    """Makes a parser for `python -m module`, whose `--help` shows the first paragraph of `doc`."""
    return argparse.ArgumentParser(prog=f"python -m {module}", description=doc.split("\n\n")[0])


def add_json(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the option `--json`, for `json_lines`."""
    parser.add_argument(
        "--json", type=pathlib.Path, default=pathlib.Path(default), metavar="FILE", help=f"results (default: {default})"
    )


@contextlib.contextmanager
def json_lines(path: pathlib.Path) -> Iterator[Callable[[dict], None]]:
    """Opens a file of results, one JSON object per line. Yields the function that writes one.

    Raises:
        SystemExit: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        expected = "Expected --json to be a file that can be written"
        raise SystemExit(f"{expected}. Received: {path} ({error.strerror})") from error
    with open(path, "w") as file:

        def write(row):
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield write
    print(f"\nJSON lines: {path}")
