# SPDX-License-Identifier: Apache-2.0
"""Parses the command lines of the benchmarks, and writes their result files."""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator


def new_parser(module: str, doc: str) -> argparse.ArgumentParser:
    """Makes a parser for `python -m module`, whose `--help` shows the first paragraph of `doc`."""
    return argparse.ArgumentParser(prog=f"python -m {module}", description=doc.split("\n\n")[0])


def add_json(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the option `--json`, the path of the file of results."""
    parser.add_argument(
        "--json", type=pathlib.Path, default=pathlib.Path(default), metavar="FILE", help=f"results (default: {default})"
    )


def create_file(path: pathlib.Path) -> None:
    """Creates the file of results, so that an error occurs before the measurements.

    Raises:
        SystemExit: The file cannot be written.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a"):
            pass


@contextlib.contextmanager
def _writing(path):
    """Ends the program with a sentence if the operating system refuses what the block does with the file of results."""
    try:
        yield
    except OSError as error:
        expected = "Expected --json to be a file that can be written"
        raise SystemExit(f"{expected}. Received: {path} ({error.strerror})") from error


@contextlib.contextmanager
def json_lines(path: pathlib.Path) -> Iterator[Callable[[dict], None]]:
    """Opens a file of results, one JSON object per line. Yields a function that writes one object.

    Raises:
        SystemExit: The file cannot be written.
    """
    create_file(path)
    with _writing(path), open(path, "w"):
        pass

    def write(row):
        with _writing(path), open(path, "a") as file:
            file.write(json.dumps(row) + "\n")

    yield write
    print(f"\nJSON lines: {path}")
