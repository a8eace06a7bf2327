# SPDX-License-Identifier: Apache-2.0
"""Reads `.npz` files from unknown sources.

`numpy.load` allocates what the header of an array declares, which may be any number. This module compares the header
with the size of the member, and the size of all members with the available memory, before it reads the first array.
"""

import dataclasses
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_dynfilter.untrusted import archives

SUFFIX = ".npy"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of an array declares.

    Attributes:
        shape: The shape.
        dtype: The dtype: numbers, booleans or texts.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def headers(path: str | os.PathLike) -> dict[str, Header]:
    """Returns the headers of all arrays of an `.npz` file by name. Reads no values.

    Raises:
        ValueError: As in `read`.
        OSError: The file cannot be read.
    """
    with archives.opened_zip(pathlib.Path(path)) as archive:
        members = _members(archive, path, None)
        return {name: _read(path, name, _read_header, archive, member) for name, member in members.items()}


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
    with archives.opened_zip(pathlib.Path(path)) as archive:
        members = _members(archive, path, names)
        return {name: _read(path, name, _read_array, archive, member) for name, member in members.items()}


def _members(archive: zipfile.ZipFile, path: str | os.PathLike, names: Iterable[str] | None) -> dict[str, str]:
    """Returns the members of the archive that hold the named arrays, or all arrays, by name of the array."""
    present = [info.filename for info in archive.infolist()]
    if names is None:
        names = [name.removesuffix(SUFFIX) for name in present]
    members = {name: name + SUFFIX for name in names}
    for name, member in members.items():
        if member not in present:
            listed = ", ".join(present[:10]) or "nothing"
            raise ValueError(f"Expected {path} to hold the array {name!r}. Received: {listed}")
    return members


def _read(path: str | os.PathLike, name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function that reads the array `name` of a file, and names both in its errors."""
    try:
        return function(*args)
    except Exception as error:  # NumPy and zipfile raise many types for damaged files
        text = str(error) or type(error).__name__
        raise ValueError(f"Expected {name!r} in {path} to be an array. Received: {text}") from error


def _read_header(archive: zipfile.ZipFile, member: str) -> Header:
    """Reads a header, and checks that it fits the size of the member."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"a header of version {'.'.join(map(str, version))}")
        shape, _, dtype = HEADERS[version](file)
        declared, stored = math.prod(shape) * dtype.itemsize, archive.getinfo(member).file_size - file.tell()
    if dtype.hasobject:
        raise ValueError("Python objects, which only code could restore")
    if min(shape, default=0) < 0 or declared != stored:
        raise ValueError(f"a header of {dtype} {shape}, {declared} bytes, and {stored} bytes")
    return Header(shape, dtype)


def _read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    _read_header(archive, member)
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
