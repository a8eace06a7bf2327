# SPDX-License-Identifier: Apache-2.0
"""Decides whether an op runs on the compiled kernels or on standard TensorFlow ops.

The decision follows fixed rules before the op is called. It never catches an exception of a failed call.
"""

import dataclasses
import functools
import warnings

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from keras_dynfilter.ops.backends import library, scope
from keras_dynfilter.ops.checks import choice

# Op -> whether it has a kernel for GPUs, which the library contains if it was built with CUDA.
OPS = {
    "local_filter2d": True,
    "dynamic_depthwise_conv2d": True,
    "ddf2d": True,
    "project_and_pool": False,
    "separable_conv2d": False,  # a depth-wise and a 1x1 convolution, with which `DDFUp2D` generates filters
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The implementation that an op call runs on.

    Attributes:
        name: `"native"` (the compiled kernels) or `"composite"` (standard TensorFlow ops).
        reason: Why it was chosen, in words that follow "because".
        is_fallback: Whether the compiled kernels would have been chosen if they were available.
    """

    name: str
    reason: str
    is_fallback: bool = False


_NATIVE = Choice("native", "its kernels are loaded")


def choose(op: str) -> Choice:
    """Chooses the implementation of the next call of `op` in this thread.

    Unless `"composite"` is requested, the function loads the library of compiled ops, and builds it if necessary.

    Args:
        op: A key of `OPS`.

    Raises:
        ValueError: `op` is unknown, or the value of the environment variable is not an implementation.
        RuntimeError: `"native"` is requested and the compiled ops are not available, or XLA compiles the function that
            is traced and they do not support XLA.
    """
    choice(op, "op", OPS)
    name, source = scope.requested()
    if name == "composite":
        return Choice("composite", f"{source} asks for it")
    loaded = library.load()
    if loaded.ops is None:
        if name == "native":
            raise RuntimeError(f"{source} asks for the native ops, which are not available: {loaded.reason}")
        return Choice("composite", f"the compiled ops are not available: {loaded.reason}", is_fallback=True)
    if not loaded.xla and _is_traced_for_xla():
        if name == "native":
            raise RuntimeError(f"{source} asks for the native ops, which XLA cannot compile: {loaded.xla_reason}")
        return Choice("composite", f"XLA cannot compile the compiled ops: {loaded.xla_reason}", is_fallback=True)
    gpu_kernels = OPS[op] and loaded.cuda
    if not gpu_kernels and tf.config.get_visible_devices("GPU"):
        if not OPS[op]:
            return Choice("composite", "its compiled kernel runs on CPUs only, and there is a GPU")
        if name != "native":
            return Choice("composite", "there is a GPU, and the library has no CUDA kernels", is_fallback=True)
    return _NATIVE


def supports_jit() -> bool:
    """Returns whether all ops, with the implementations that `choose` returns now, support `jit_compile=True`."""
    return all(choose(op).name == "composite" for op in OPS) or library.load().xla


def _is_traced_for_xla():
    """Returns whether the current call traces a function, or a part of one, that has `jit_compile=True`."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


@functools.cache
def warn_of_fallback(reason: str) -> None:
    """Warns that an op runs on standard TensorFlow ops, once per process and reason."""
    warnings.warn(
        f"keras_dynfilter runs on composite TensorFlow ops, which are slower than the compiled ops: {reason}",
        RuntimeWarning,
        stacklevel=5,  # points to the caller of the public op: warn_of_fallback, filter2d, public op, decorator, caller
    )
