# SPDX-License-Identifier: Apache-2.0
"""Finds or builds the libraries of compiled ops, and loads them once, when an op first needs them."""

import ctypes
import dataclasses
import pathlib
import sys
import threading
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Library:
    """Holds the compiled ops of this process, or the reason why they are not available.

    Attributes:
        ops: The module of raw ops, or None if they are not available.
        cuda: Whether the ops have CUDA kernels.
        xla: Whether the ops compile under XLA.
        reason: Why `ops` is None.
        xla_reason: Why `xla` is False.
        paths: The library files that were loaded.
        notes: Notes of the build on missing parts, with the reasons.
    """

    ops: Any = None
    cuda: bool = False
    xla: bool = False
    reason: str = ""
    xla_reason: str = ""
    paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_lock = threading.Lock()
_loaded: Library | None = None


def load() -> Library:
    """Returns the `Library` of this process. The first call loads the files, and builds them if they are missing."""
    return _loaded or _load_once()


@tf.autograph.experimental.do_not_convert  # The first call may happen while a function is traced.
def _load_once():
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def loaded() -> Library | None:
    """Returns the `Library` of this process, or None if no op has needed it yet."""
    return _loaded


def _load():
    if not sys.platform.startswith("linux"):
        return Library(reason=f"they are built on Linux only, not on {sys.platform}")
    try:
        libraries = _find_or_build()
        ops = tf.load_op_library(str(libraries.ops))
    except (RuntimeError, ImportError, OSError, tf.errors.OpError) as error:
        return Library(reason=str(error))
    xla, xla_reason = False, "; ".join(note for note in libraries.notes if "XLA" in note)
    if libraries.xla is not None:
        try:
            tf.load_op_library(str(libraries.xla))
            xla = True
        except tf.errors.OpError as error:
            xla_reason = str(error)
    paths = tuple(str(path) for path in (libraries.ops, libraries.xla) if path is not None)
    cuda = bool(ctypes.CDLL(str(libraries.ops)).keras_dynfilter_has_cuda())
    return Library(ops, cuda, xla, "", xla_reason, paths, libraries.notes)


def _find_or_build():
    """Returns the libraries that `pip install` built for this TensorFlow, or else libraries in the cache.

    Builds the libraries if the cache does not have them.
    """
    # Imported here, because `python -m keras_dynfilter.custom_ops.build` warns if the package has imported it before.
    from keras_dynfilter.custom_ops import build

    folder = pathlib.Path(build.__file__).parent / "lib" / tf.version.VERSION
    ops = list(folder.glob("libkeras_dynfilter_ops-*.so"))
    xla = list(folder.glob("libkeras_dynfilter_xla-*.so"))
    if ops:
        return build.Libraries(ops[0], xla[0] if xla else None)
    return build.build(progress=lambda text: print(text, file=sys.stderr, flush=True))
