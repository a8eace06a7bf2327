# SPDX-License-Identifier: Apache-2.0
"""Which implementation an op runs on: chosen by rule before the call, never by rescue after a failure."""

import warnings

from keras_dynfilter.ops.backends import library as library_module
from keras_dynfilter.ops.backends import scope

_warned = False


def use_native():
    """Whether the next op call runs on the compiled ops. Warns, once, when it would have but they cannot be had."""
    global _warned
    name, source = scope.requested()
    if name == "composite":
        return False
    library = library_module.load()
    reason = library.reason
    if library.ops is not None:
        if name == "native" or not library_module.lacks_gpu_kernels():
            return True
        reason = "there is a GPU, and the library has no CUDA kernels, as nvcc was missing when it was built"
    if name == "native":
        raise RuntimeError(f"{source} asks for the native ops, which are not available: {reason}")
    if not _warned:
        _warned = True
        warnings.warn(
            f"keras_dynfilter runs on composed TensorFlow ops, which are slower than its own: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
    return False


def supports_jit():
    """Whether the ops, as they would be chosen now, compile under XLA (`jit_compile=True`)."""
    return library_module.load().xla if use_native() else True
