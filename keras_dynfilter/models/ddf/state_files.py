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
    path = pathlib.Path(path)
    readers = [reader for ending, reader in _READERS.items() if path.name.endswith(ending)]
    if not readers:
        raise ValueError(f"Expected `state` to be a dict or a file {', '.join(_READERS)}. Received: {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"Expected `state` to be a file that exists. Received: {str(path)!r}")
    state = readers[0](path)
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
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's reader raises errors of any type for damaged files
        raise ValueError(f"Expected {path} to be a file of tensors only. Received: {error}") from error


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"safetensors is needed to read {path}: pip install 'keras_dynfilter[pytorch]'") from error
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"Expected {path} to be a safetensors file. Received: {error}") from error


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive.items())
    except Exception as error:  # NumPy and zipfile raise errors of any type for damaged files
        raise ValueError(f"Expected {path} to be a .npz archive of numbers. Received: {error}") from error


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".pth": _read_pytorch,
    ".pth.tar": _read_pytorch,
    ".pt": _read_pytorch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
