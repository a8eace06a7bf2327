# SPDX-License-Identifier: Apache-2.0
"""Reads `.npz` files from unknown sources.

`numpy.load` allocates what the header of an array declares, which may be any number. This module compares the header
with the size of the member, and the size of all members with the available memory, before it reads the first array.
"""

import math
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_dynfilter.export.untrusted import archives

SUFFIX = ".npy"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: str | os.PathLike, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Returns arrays of an `.npz` file by name.

    Args:
        path: The file.
        names: The arrays to read. None: all.

    Raises:
        ValueError: The file is damaged or holds something else than arrays of numbers, booleans and texts; an array is
            missing; or the arrays need more than half of the available memory.
        OSError: The file cannot be read.
    """
    path = pathlib.Path(path)
    with archives.opened_zip(path) as archive:
        present = [info.filename for info in archive.infolist()]
        if names is None:
            names = [name.removesuffix(SUFFIX) for name in present]
        arrays = {}
        for name in names:
            if name + SUFFIX not in present:
                listed = ", ".join(present[:10]) or "nothing"
                raise ValueError(f"Expected {path} to hold the array {name!r}. Received: {listed}")
            try:
                arrays[name] = _read_member(archive, name + SUFFIX)
            except Exception as error:  # NumPy and zipfile raise many types for damaged files
                text = str(error) or type(error).__name__
                raise ValueError(f"Expected {name!r} in {path} to be an array. Received: {text}") from error
        return arrays


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        shape, dtype = _header(file)
        declared, stored = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - file.tell()
    if dtype.hasobject:
        raise ValueError("Python objects, which only code could restore")
    if min(shape, default=0) < 0 or declared != stored:
        raise ValueError(f"a header of {dtype} {shape}, {declared} bytes, and {stored} bytes")
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the header of an array. Returns its shape and its dtype."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"a header of version {'.'.join(map(str, version))}")
    shape, _, dtype = HEADERS[version](file)
    return shape, dtype
