# SPDX-License-Identifier: Apache-2.0
"""The state of a training as one file, which is whole at any moment."""

import json
import os
import pathlib
import zipfile

import numpy as np

NOTES = "notes"


def save(path, arrays, notes):
    """Writes arrays and notes. Whoever kills the process meanwhile finds the file as it was before.

    Args:
        path: The file. What is being written lies beside it until it is complete, under the name with `.part`.
        arrays: Sequence of NumPy arrays.
        notes: What is to be known beside them, as for JSON.
    """
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        np.savez(file, **{NOTES: np.array(json.dumps(notes))}, **{str(i): array for i, array in enumerate(arrays)})
        file.flush()
        os.fsync(file.fileno())  # before the name: else a power cut could leave the name without the content
    os.replace(part, path)


def load(path):
    """Reads what `save` wrote.

    Returns:
        `(arrays, notes)`.

    Raises:
        ValueError: `path` is not such a file.
    """
    try:
        with open(path, "rb") as file, np.load(file) as content:
            notes = json.loads(str(content[NOTES]))
            return [content[str(i)] for i in range(len(content.files) - 1)], notes
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected {path} to hold the state of a training. Received: {error}") from error


def restore(variables, arrays, path):
    """Gives `variables` the values that `load` returned.

    Raises:
        ValueError: The values are those of other variables.
    """
    expected, received = ([tuple(value.shape) for value in values] for values in (variables, arrays))
    if expected != received:
        differ = next((pair for pair in zip(expected, received) if pair[0] != pair[1]), (len(expected), len(received)))
        expected = f"Expected {path} to hold the {len(expected)} variables of this model and its optimizer"
        raise ValueError(f"{expected}. Received: {len(received)}, the first difference is {differ[0]} to {differ[1]}")
    for variable, array in zip(variables, arrays):
        variable.assign(array)
