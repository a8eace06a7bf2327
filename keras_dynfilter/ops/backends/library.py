# SPDX-License-Identifier: Apache-2.0
"""Finds or builds the libraries of compiled ops, and loads them once, when an op first needs them."""

import dataclasses
import pathlib
import sys
import threading
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import kernels

from keras_dynfilter.ops.backends import registered


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
    if not sys.platform.startswith(("linux", "darwin")):
        return Library(reason=f"they are built on Linux only, not on {sys.platform}")
    # Imported here, because `python -m keras_dynfilter.custom_ops.build` warns if the package has imported it before.
    from keras_dynfilter.custom_ops import sources

    try:
        earlier = registered.find()
        if earlier is not None and earlier.version != sources.ops_version():
            return Library(
                reason=f"this process has already loaded another version of the ops, {earlier.path}, and TensorFlow "
                "cannot unload it. Start a new process that loads one version"
            )
        if earlier is not None:
            ops, libraries = earlier.ops, _complete(earlier)
        else:
            libraries = _find_or_build()
            ops = tf.load_op_library(str(libraries.ops))
    except (RuntimeError, ImportError, OSError, tf.errors.OpError) as error:
        return Library(reason=str(error))
    xla_reason = "; ".join(note for note in libraries.notes if "XLA" in note)
    if libraries.xla is not None and not _has_kernel("XLA_CPU_JIT"):
        try:
            tf.load_op_library(str(libraries.xla))
        except tf.errors.OpError as error:
            xla_reason = str(error)
    xla = _has_kernel("XLA_CPU_JIT")
    registered.remember(
        registered.Registered(ops, sources.ops_version(), str(libraries.ops), str(libraries.xla or "") if xla else "")
    )
    paths = tuple(str(path) for path in (libraries.ops, libraries.xla) if path is not None)
    return Library(ops, _has_kernel("GPU"), xla, "", "" if xla else xla_reason, paths, libraries.notes)


def _has_kernel(device):
    """Returns whether the compiled ops have kernels for a type of device in this process."""
    found = kernels.get_registered_kernels_for_op(registered.OP)
    return any(kernel.device_type == device for kernel in found.kernel)


def _complete(earlier):
    """Returns the libraries of a process that has already loaded the ops, with an XLA library if it has none yet."""
    from keras_dynfilter.custom_ops import build

    if earlier.xla_path:
        return build.Libraries(pathlib.Path(earlier.path), pathlib.Path(earlier.xla_path))
    try:
        libraries = _find_or_build()
    except build.BuildError as error:
        return build.Libraries(pathlib.Path(earlier.path), None, (f"no XLA kernels: {error}",))
    return dataclasses.replace(libraries, ops=pathlib.Path(earlier.path))


def _find_or_build():
    """Returns the libraries in the package that fit this TensorFlow, or else libraries in the cache.

    Builds the libraries if the cache does not have them.
    """
    from keras_dynfilter.custom_ops import build, installed, toolchain, units

    found, reasons = installed.find(units.TensorFlow.installed())
    can_have_cuda = toolchain.find_nvcc() is not None and not toolchain.cuda_is_off()
    wants_cuda = can_have_cuda and bool(tf.config.list_physical_devices("GPU"))
    if found is not None and (found.cuda or not wants_cuda):
        return found
    if sys.platform == "darwin":
        finished = build.find_finished()
        if finished is None:
            raise build.BuildError(
                "on macOS only the command `python -m keras_dynfilter.custom_ops.build` builds them, which is not "
                "tested there"
            )
        return finished
    try:
        built = build.build(progress=lambda text: print(text, file=sys.stderr, flush=True))
    except build.BuildError as error:
        if found is not None:
            return dataclasses.replace(found, notes=(*found.notes, f"no CUDA kernels: {error}"))
        raise build.BuildError("; ".join([*reasons, str(error)])) from error
    return dataclasses.replace(built, notes=(*built.notes, *reasons))
