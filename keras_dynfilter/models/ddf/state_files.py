# SPDX-License-Identifier: Apache-2.0
"""Reads files with the states of PyTorch modules, without running code from them."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Path = str | os.PathLike


def read_state(path: Path) -> Mapping[str, Any]:
    """Reads a dict from names to arrays or tensors.

    Args:
        path: A file `.pth`, `.pth.tar` or `.pt` (needs PyTorch), `.safetensors`, or `.npz`.

    Raises:
        ValueError: The name of the file has another ending, or the file has other contents.
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
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"safetensors is needed to read {path}: pip install 'keras_dynfilter[pytorch]'") from error
    return safetensors.numpy.load_file(path)


def _read_npz(path):
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("a single array")
    with archive:
        return dict(archive.items())


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".pth": _read_pytorch,
    ".pth.tar": _read_pytorch,
    ".pt": _read_pytorch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
