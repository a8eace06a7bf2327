# SPDX-License-Identifier: Apache-2.0
"""Finds or builds the compiled ops and loads them, once, when an op first needs them."""

import ctypes
import dataclasses
import pathlib
import sys
import threading
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Library:
    """What was loaded: the module of raw ops (or None), whether CUDA and XLA kernels came along, and why not if not."""

    ops: Any = None
    cuda: bool = False
    xla: bool = False
    reason: str = ""
    xla_reason: str = ""
    paths: tuple = ()
    notes: tuple = ()


_lock = threading.Lock()
_loaded = None


@tf.autograph.experimental.do_not_convert  # the first call may come while a function is traced
def load():
    """Returns the `Library` of this process; builds it if it is not in the cache yet."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def _load():
    if not sys.platform.startswith("linux"):
        return Library(reason=f"they are built on Linux only, not on {sys.platform}")
    try:
        libraries = _prebuilt() or _build()
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


def lacks_gpu_kernels():
    """Whether there is a GPU and the library was built without CUDA."""
    return not load().cuda and bool(tf.config.get_visible_devices("GPU"))


def _prebuilt():
    """The libraries that `pip install` built into the package, if they are of this TensorFlow."""
    from keras_dynfilter.custom_ops import build

    folder = pathlib.Path(build.__file__).parent / "lib" / tf.version.VERSION
    ops = list(folder.glob("libkeras_dynfilter_ops-*.so"))
    xla = list(folder.glob("libkeras_dynfilter_xla-*.so"))
    return build.Libraries(ops[0], xla[0] if xla else None) if ops else None


def _build():
    from keras_dynfilter.custom_ops import build

    return build.build(progress=lambda text: print(text, file=sys.stderr, flush=True))
