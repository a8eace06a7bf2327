# SPDX-License-Identifier: Apache-2.0
"""Reads files with the states of PyTorch modules, without running code from them.

A small file can declare arrays of any size. Its sizes are therefore compared with the available memory first, and the
values of an array in an `.npz` file, which may be compressed, are read only if its shape is the one that is needed.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_dynfilter.untrusted import archives, memory, npz

Path = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in an `.npz` file whose values have not been read.

    Attributes:
        path: The file.
        name: Name of the array in the file.
        shape: Its shape.
        dtype: Its dtype.
    """

    path: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """Returns the array.

        Raises:
            ValueError: The file is damaged.
        """
        return npz.read(self.path, [self.name])[self.name]


def read_state(path: Path) -> Mapping[str, Any]:
    """Reads a dict from names to arrays, tensors or `StoredArray`.

    Args:
        path: A file `.pth`, `.pth.tar` or `.pt` (needs PyTorch), `.safetensors`, or `.npz`.

    Raises:
        ValueError: The name of the file has another ending, or the file has other contents, or needs more than half of
            the available memory.
        FileNotFoundError: There is no such file.
        ImportError: The package that reads the file is not installed.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"Expected `state` to be a dict or the path of a file. Received: state={path!r}")
    path = pathlib.Path(path)
    readers = [reader for ending, reader in _READERS.items() if path.name.endswith(ending)]
    if not readers:
        raise ValueError(f"Expected `state` to be a dict or a file {', '.join(_READERS)}. Received: {str(path)!r}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Expected `state` to be a file that exists. Received: {str(path)!r}")
    try:
        state = readers[0](path)
    except ImportError:
        raise
    except Exception as error:  # The readers raise errors of many types for damaged files, such as MemoryError.
        raise ValueError(f"Expected {path} to be a file of arrays of numbers only. Received: {error}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"Expected {path} to hold a dict of tensors. Received: {type(state).__name__}")
    return state


def _read_pytorch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"PyTorch is needed to read {path}: pip install 'keras_dynfilter[pytorch]'. Or convert the file to "
            ".safetensors or .npz elsewhere"
        ) from error
    if zipfile.is_zipfile(path):  # the members may be compressed
        with archives.opened_zip(path):
            pass
    else:
        _check_size(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"safetensors is needed to read {path}: pip install 'keras_dynfilter[pytorch]'") from error
    _check_size(path)  # arrays in this format are not compressed
    return safetensors.numpy.load_file(path)


def _read_npz(path):
    return {name: StoredArray(path, name, header.shape, header.dtype) for name, header in npz.headers(path).items()}


def _check_size(path):
    memory.check(path.stat().st_size, str(path))


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".pth": _read_pytorch,
    ".pth.tar": _read_pytorch,
    ".pt": _read_pytorch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
