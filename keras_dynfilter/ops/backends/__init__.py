# SPDX-License-Identifier: Apache-2.0
"""Decides whether an op runs on the compiled kernels or on standard TensorFlow ops.

The decision follows fixed rules before the op is called. It never catches an exception of a failed call.
"""

import dataclasses
import functools
import warnings

import tensorflow as tf

from keras_dynfilter.ops.backends import library, scope
from keras_dynfilter.ops.checks import choice

# Op -> whether its compiled kernels also run on GPUs, provided that the library was built with CUDA.
OPS = {
    "local_filter2d": True,
    "dynamic_depthwise_conv2d": True,
    "ddf2d": True,
    "project_and_pool": False,
    "separable_conv2d": False,  # a depth-wise and a 1x1 convolution, which generate the filters of `DDFUp2D`
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The implementation that an op call runs on.

    Attributes:
        name: `"native"` (the compiled kernels) or `"composite"` (standard TensorFlow ops).
        reason: Why, as the rest of a sentence that begins with "because".
        is_fallback: Whether `"native"` is the default here but cannot be used.
    """

    name: str
    reason: str
    is_fallback: bool = False


_NATIVE = Choice("native", "its kernels are loaded")


def choose(op: str) -> Choice:
    """Chooses the implementation of the next call of `op` in this thread.

    Loads the library of compiled ops, and builds it if necessary, unless `"composite"` is requested.

    Args:
        op: A key of `OPS`.

    Raises:
        ValueError: `op` is unknown, or the environment variable names no implementation.
        RuntimeError: `"native"` is requested and the compiled ops are not available.
    """
    if op not in OPS:
        choice(op, "op", OPS)
    name, source = scope.requested()
    if name == "composite":
        return Choice("composite", f"{source} asks for it")
    loaded = library.load()
    if loaded.ops is None:
        if name == "native":
            raise RuntimeError(f"{source} asks for the native ops, which are not available: {loaded.reason}")
        return Choice("composite", f"the compiled ops are not available: {loaded.reason}", is_fallback=True)
    gpu_kernels = OPS[op] and loaded.cuda
    if not gpu_kernels and tf.config.get_visible_devices("GPU"):
        if not OPS[op]:
            return Choice("composite", "its compiled kernel runs on CPUs only, and there is a GPU")
        if name != "native":
            return Choice("composite", "there is a GPU, and the library has no CUDA kernels", is_fallback=True)
    return _NATIVE


def supports_jit() -> bool:
    """Whether all ops, as they would be chosen now, compile under XLA (`jit_compile=True`)."""
    return all(choose(op).name == "composite" for op in OPS) or library.load().xla


@functools.cache
def warn_of_fallback(reason: str):
    """Warns that an op runs on standard TensorFlow ops, once per process and reason."""
    warnings.warn(
        f"keras_dynfilter runs on composite TensorFlow ops, which are slower than its own: {reason}",
        RuntimeWarning,
        stacklevel=4,  # the caller of the public op: warn_of_fallback, filter2d, the op, its caller
    )
