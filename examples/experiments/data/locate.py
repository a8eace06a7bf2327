# SPDX-License-Identifier: Apache-2.0
"""Locates data sets: in a given folder, or in the folder that an environment variable names."""

import os
import pathlib

VARIABLE = "KERAS_DYNFILTER_DATA"


def find_data(name: str | tuple[str, ...], data_dir: str | os.PathLike | None = None) -> pathlib.Path | None:
    """Locates a data set on this machine.

    Args:
        name: A folder or file, such as `"stereo"` or `"mnist/mnist.npz"`, or a tuple of names that it may have.
        data_dir: Folder that holds `name`, or `name` itself. If `name` is not there, the folder in the environment
            variable `KERAS_DYNFILTER_DATA` is searched.

    Returns:
        The path, or None if there is no such data set.

    Raises:
        ValueError: `data_dir`, or the folder in the environment variable, does not exist.
    """
    folders = [("data_dir", data_dir), (VARIABLE, os.environ.get(VARIABLE) or None)]
    names = (name,) if isinstance(name, str) else name
    for origin, folder in folders:
        if folder is None:
            continue
        folder = pathlib.Path(folder).expanduser()
        if not folder.exists():
            raise ValueError(f"Expected `{origin}` to be an existing folder. Received: {origin}={str(folder)!r}")
        for candidate in names:
            if (folder / candidate).exists():
                return folder / candidate
            parts = pathlib.PurePath(candidate).parts
            if folder.resolve().parts[-len(parts) :] == parts:
                return folder
    return None
