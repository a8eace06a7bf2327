# SPDX-License-Identifier: Apache-2.0
"""Writes files so that a reader, or a run that was killed, never finds half a file."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_dynfilter.untrusted import archives

CHECKSUM = "checksum"
# Errors of the file system. TensorFlow raises its own types.
REFUSALS = (
    OSError,
    tf.errors.AlreadyExistsError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)


class WriteError(OSError):
    """Reports a file or a folder that cannot be written. The message is for the user."""


@contextlib.contextmanager
def writing(path: str | pathlib.Path, kind: str = "file") -> Iterator[None]:
    """Raises a `WriteError` if the operating system refuses what the block does with `path`.

    Args:
        path: A file or a folder.
        kind: `"file"` or `"folder"`, for the error.
    """
    try:
        yield
    except WriteError:
        raise
    except REFUSALS as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or f"{error}"
        reason = re.sub(r"\{\{.*?\}\} ?| \[Op:.*", "", reason.strip().splitlines()[0])  # names of TensorFlow's ops
        raise WriteError(f"Expected {path} to be a {kind} that can be written. Received: {reason}") from error


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
    with writing(path):
        part.unlink(missing_ok=True)  # of a killed process; or a pipe, which would block
        try:
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())  # before the renaming: a power cut could leave the name without the content
            os.replace(part, path)
        finally:
            if part.is_file():  # on a full disk, half a file would take the room of the next one
                part.unlink()


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes a text."""
    with written_whole(path) as part:
        part.write_text(text)


@contextlib.contextmanager
def new_log(path: pathlib.Path) -> Iterator[Any]:
    """Opens an empty file for the output of another process.

    Raises:
        WriteError: The file cannot be written.
    """
    with writing(path):
        path.unlink(missing_ok=True)  # a pipe would block
        path.touch(exist_ok=False)
    with open(path, "w") as file:
        yield file


def write_json(path: str | pathlib.Path, content: Any) -> None:
    """Writes `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
