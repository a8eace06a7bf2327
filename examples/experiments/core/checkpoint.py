# SPDX-License-Identifier: Apache-2.0
"""Saves the state of a training in one file that is complete at any moment.

TensorFlow and Orbax write a checkpoint as a folder of several files, without the settings of the run. This module
writes a single file, which records the settings. The file starts with a line that holds the checksum of the rest.
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from examples.experiments.core import files
from keras_dynfilter.export import dtypes
from keras_dynfilter.untrusted import archives, npz

NOTES = "notes"
HEAD = "keras_dynfilter state of a training, SHA-256 {}\n"
HEAD_SIZE = len(HEAD.format(hashlib.sha256().hexdigest()))
REMEDY = "Rename or delete it, and the training starts at step 0"


class SetupError(ValueError):
    """Reports a saved state, settings or stages that do not fit the training. The message is for the user."""


def save(path: str | pathlib.Path, arrays: Sequence[np.ndarray], notes: Any) -> None:
    """Writes arrays and notes into one file. If the process is killed meanwhile, the old file stays.

    Args:
        path: The file.
        arrays: Sequence of NumPy arrays.
        notes: Dictionary that JSON can represent.
    """
    named = {str(i): dtypes.storable(array) for i, array in enumerate(arrays)}
    with files.written_whole(path) as part, open(part, "wb+") as file:
        file.write(bytes(HEAD_SIZE))
        np.savez(file, **{NOTES: np.array(json.dumps(notes))}, **named)
        head = _head(file)
        file.seek(0)
        file.write(head)


def _head(file):
    """Returns the first line for the content of an open file, which follows the place of this line."""
    file.seek(HEAD_SIZE)
    checksum = hashlib.sha256()
    while piece := file.read(1 << 20):
        checksum.update(piece)
    return HEAD.format(checksum.hexdigest()).encode()


def load(path: str | pathlib.Path) -> tuple[list[np.ndarray], Any]:
    """Reads a file that `save` has written.

    Returns:
        `(arrays, notes)`.

    Raises:
        SetupError: The file is damaged, or not one that `save` writes.
    """
    try:
        archives.check_regular(pathlib.Path(path))  # a pipe would block the run
        with open(path, "rb") as file:
            head = file.read(HEAD_SIZE)
            if head != _head(file):
                raise ValueError("a damaged or another file, since its checksum is wrong")
        arrays = npz.read(path)  # a ZIP archive may follow other bytes
        notes = json.loads(str(arrays.pop(NOTES)))
        return [arrays[str(i)] for i in range(len(arrays))], notes
    except Exception as error:  # the errors of a file that somebody has made up are of many types
        reason = getattr(error, "strerror", None) or str(error).rpartition("Received: ")[2]
        raise SetupError(f"Expected {path} to hold the state of a training. Received: {reason}. {REMEDY}") from error


def restore(variables: Sequence, arrays: Sequence[np.ndarray], path: str | pathlib.Path) -> None:
    """Assigns the values that `load` returned to `variables`.

    Raises:
        SetupError: The number, a shape or a dtype of the values does not fit the variables.
    """
    expected, received = ([tuple(value.shape) for value in values] for values in (variables, arrays))
    if expected != received:
        sizes = len(expected), len(received)
        first = next((pair for pair in zip(expected, received) if pair[0] != pair[1]), sizes)
        expected = f"Expected {path} to hold the {len(expected)} variables of this model and its optimizer"
        difference = f"{len(received)}, the first difference is {first[0]} to {first[1]}"
        raise SetupError(f"{expected}. Received: {difference}. {REMEDY}")
    for variable, array in zip(variables, arrays):
        try:
            variable.assign(dtypes.restored(array, tf.as_dtype(variable.dtype).as_numpy_dtype))
        except (TypeError, ValueError) as error:
            raise SetupError(f"Expected {path} to hold arrays of numbers. Received: {array.dtype}. {REMEDY}") from error


def read_settings(path: pathlib.Path) -> dict[str, Any]:
    """Reads the settings of a run. Returns them by name.

    Raises:
        SetupError: `path` is damaged.
    """
    remedy = "Delete it; the states of the run record the settings, too"
    return read_record(path, "the settings of a run", remedy)


def read_record(path: pathlib.Path, content: str, remedy: str) -> dict[str, Any]:
    """Reads a file that `files.write_record` has written.

    Args:
        path: The file.
        content: What the file should hold, for the error.
        remedy: What the user can do, for the error.

    Raises:
        SetupError: The file is damaged.
    """
    try:
        return files.read_record(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).rpartition("Received: ")[2]
        raise SetupError(f"Expected {path} to hold {content}, as JSON. Received: {reason}. {remedy}") from error


def check_same_settings(earlier: dict[str, Any], settings: dict[str, Any], path: str | pathlib.Path) -> None:
    """Checks that a run continues with the settings that it began with.

    Args:
        earlier: Settings by name, read from `path`.
        settings: Settings of the run that continues the earlier one, for JSON. Each is the value of the option with
            its name, except `data`, which describes the training data.
        path: File that the error names.

    Raises:
        SetupError: The settings differ.
    """
    # The data come last: if an option differs, too, it may be the reason for other data.
    for name in sorted({*earlier, *settings}, key=lambda name: (name == "data", name)):
        expected, received = earlier.get(name), settings.get(name)
        if expected == received:
            continue
        if name == "data":
            if isinstance(expected, dict) and isinstance(received, dict):
                # Only the parts that differ are named, since there may be many parts.
                keys = {key for key in {*expected, *received} if expected.get(key) != received.get(key)}
                expected, received = (
                    {key: parts[key] for key in sorted(keys & {*parts})} for parts in (expected, received)
                )
            expected = f"the same training data: {expected}"
        else:
            option = "--" + name.replace("_", "-")
            expected, received = (
                _as_typed(option, expected, f"{option} {expected}"),
                _as_typed(option, received, received),
            )
        raise SetupError(f"Expected {expected}, as in {path}. Received: {received}. Another --out begins a new run")


def _as_typed(option, value, otherwise):
    """Returns `option` for True, "no" with `option` for False and None, and `otherwise` for other values."""
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else otherwise


def set_aside(path: pathlib.Path) -> None:
    """Renames the file of an earlier run, and prints the new name. Files that were renamed before are kept."""
    names = (f"{path.name}.previous{end}" for end in itertools.chain([""], (f".{i}" for i in itertools.count(2))))
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.replace(kept)
    print(f"{path}: belongs to an earlier run, renamed to {kept.name}.")
