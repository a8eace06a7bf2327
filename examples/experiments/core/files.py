# SPDX-License-Identifier: Apache-2.0
"""Writes files so that a reader, or a run that was killed, never finds half a file."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_dynfilter.export.untrusted import archives

CHECKSUM = "checksum"


class WriteError(OSError):
    """Reports a file that cannot be written. The message is for the user."""


@contextlib.contextmanager
def written_whole(path: str | pathlib.Path, suffix: str = "") -> Iterator[pathlib.Path]:
    """Yields the path of a temporary file next to `path`, and renames this file to `path` when the block has ended.

    A process that is killed inside the block leaves `path` as it was before. An error also removes the temporary file.

    Args:
        path: The file to write.
        suffix: Text after `.part` in the name of the temporary file, for writers that infer the format from the name.

    Raises:
        WriteError: The operating system refuses to write, for example because the disk is full.
    """
    path = pathlib.Path(path)
    part = path.with_name(f"{path.name}.part{suffix}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # before the renaming: a power cut could leave the name without the content
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"Expected {path} to be a file that can be written. Received: {reason}") from error
    finally:
        if part.is_file():  # on a full disk, half a file would take the room of the next one
            part.unlink()


def write_json(path: str | pathlib.Path, content: Any) -> None:
    """Writes `content` as JSON."""
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def write_record(path: str | pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a dictionary as JSON, with a checksum as its last item, for `read_record`."""
    content = json.loads(json.dumps(content))  # as JSON will return it
    write_json(path, {**content, CHECKSUM: _checksum(content)})


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """Reads a file that `write_record` has written.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        archives.check_regular(path)  # a pipe would block the run
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
        if content.pop(CHECKSUM, None) != _checksum(content):
            raise ValueError("a damaged or edited file, since its checksum is wrong")
    except RecursionError as error:
        raise ValueError("too many brackets") from error
    return content


def _checksum(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
