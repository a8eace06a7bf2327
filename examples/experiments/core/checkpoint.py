# SPDX-License-Identifier: Apache-2.0
"""The state of a training as one file, which is whole at any moment."""

import itertools
import json
import zipfile

import numpy as np

from examples.experiments.core import files

NOTES = "notes"


class SetupError(ValueError):
    """What a training is to start with does not fit: its state, settings or stages. The text is for the user."""


def save(path, arrays, notes):
    """Writes arrays and notes into one file. A process that is killed meanwhile leaves the file as it was before.

    Args:
        path: The file.
        arrays: Sequence of NumPy arrays.
        notes: Dictionary of values for JSON.
    """
    with files.written_whole(path) as part, open(part, "wb") as file:
        np.savez(file, **{NOTES: np.array(json.dumps(notes))}, **{str(i): array for i, array in enumerate(arrays)})


def load(path):
    """Reads what `save` wrote.

    Returns:
        `(arrays, notes)`.

    Raises:
        SetupError: `path` is not such a file.
    """
    try:
        with open(path, "rb") as file, np.load(file) as content:
            notes = json.loads(str(content[NOTES]))
            return [content[str(i)] for i in range(len(content.files) - 1)], notes
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SetupError(f"Expected {path} to hold the state of a training. Received: {error}") from error


def restore(variables, arrays, path):
    """Gives `variables` the values that `load` returned.

    Raises:
        SetupError: The values are those of other variables.
    """
    expected, received = ([tuple(value.shape) for value in values] for values in (variables, arrays))
    if expected != received:
        differ = next((pair for pair in zip(expected, received) if pair[0] != pair[1]), (len(expected), len(received)))
        expected = f"Expected {path} to hold the {len(expected)} variables of this model and its optimizer"
        raise SetupError(f"{expected}. Received: {len(received)}, the first difference is {differ[0]} to {differ[1]}")
    for variable, array in zip(variables, arrays):
        variable.assign(array)


def read_settings(path):
    """Reads the settings of a run, by name.

    Raises:
        SetupError: `path` does not hold settings.
    """
    try:
        settings = json.loads(path.read_text())
        if not isinstance(settings, dict):
            raise ValueError(f"a {type(settings).__name__}")
    except ValueError as error:
        raise SetupError(f"Expected {path} to hold the settings of a run, as JSON. Received: {error}") from error
    return settings


def same_settings(earlier, settings, path):
    """Refuses to continue a run with other settings than it began with.

    Args:
        earlier: Settings by name, as they were read from `path`.
        settings: Those of the run that is to continue it, as for JSON. A setting is the option of the same name,
            except for `data`, which describes what was loaded to train on.
        path: File that is named in the error.

    Raises:
        SetupError: They differ.
    """
    for name in sorted({*earlier, *settings}, key=lambda name: (name == "data", name)):  # an option says more than data
        expected, received = earlier.get(name), settings.get(name)
        if expected == received:
            continue
        if name == "data":
            if isinstance(expected, dict) and isinstance(received, dict):  # only what differs, of many files perhaps
                differ = {key for key in {*expected, *received} if expected.get(key) != received.get(key)}
                expected, received = ({key: of[key] for key in sorted(differ & {*of})} for of in (expected, received))
            expected = f"the same training data: {expected}"
        else:
            option = "--" + name.replace("_", "-")
            expected, received = (
                _switched(option, expected, f"{option} {expected}"),
                _switched(option, received, received),
            )
        raise SetupError(f"Expected {expected}, as in {path}. Received: {received}. Another --out begins a new run")


def _switched(option, value, otherwise):
    """How an option without a value is typed on the command line, `otherwise` if it has one."""
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else otherwise


def set_aside(path):
    """Renames the file of an earlier run, and says so; what was set aside before is kept too."""
    names = (f"{path.name}.previous{end}" for end in itertools.chain([""], (f".{i}" for i in itertools.count(2))))
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.replace(kept)
    print(f"{path}: of an earlier run, is now {kept.name}.")
