# SPDX-License-Identifier: Apache-2.0
"""Runs the command line: `python -m keras_dynfilter.export`."""

import sys

from keras_dynfilter.export.cli import main

if __name__ == "__main__":
    sys.exit(main())
