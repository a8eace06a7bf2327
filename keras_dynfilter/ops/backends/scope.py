# SPDX-License-Identifier: Apache-2.0
"""What the user requests for the calls of this thread: an implementation of the ops, and graphs without gradients."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

from keras_dynfilter.ops.checks import choice

IMPLEMENTATIONS = ("auto", "native", "composite")
VARIABLE = "KERAS_DYNFILTER_IMPLEMENTATION"

_state = threading.local()


@contextlib.contextmanager
def implementation(name: str) -> Iterator[None]:
    """Selects the implementation of the ops that are called or traced inside the `with` block.

    The selection applies to the current thread. A `tf.function` keeps the implementation under which it was traced.
    Outside of any block, the environment variable `KERAS_DYNFILTER_IMPLEMENTATION` selects; its default is `"auto"`.

    Args:
        name: `"auto"` (the compiled ops if they are available, otherwise TensorFlow ops), `"native"` (the compiled
            ops, or an error that says why they are not available) or `"composite"` (TensorFlow ops only, for
            portable exports).

    Returns:
        A context manager.

    Raises:
        ValueError: On entry, if `name` is none of these.
        RuntimeError: When an op is called under `"native"` and the compiled ops are not available.

    Example:

    >>> with implementation("composite"):
    ...     output = ops.local_filter2d(inputs, filters, kernel_size=3)
    """
    previous = getattr(_state, "name", None)
    _state.name = choice(name, "name", IMPLEMENTATIONS)
    try:
        yield
    finally:
        _state.name = previous


def requested() -> tuple[str, str]:
    """Returns the requested implementation and what requests it.

    In order of precedence: the innermost `with implementation(...)` block, the environment variable, the default.

    Raises:
        ValueError: The environment variable names no implementation.
    """
    name = getattr(_state, "name", None)
    if name is not None:
        return name, "keras_dynfilter.implementation"
    name = os.environ.get(VARIABLE)
    if name:
        return choice(name, VARIABLE, IMPLEMENTATIONS), f"the environment variable {VARIABLE}"
    return "auto", "the default"


@contextlib.contextmanager
def inference_only() -> Iterator[None]:
    """Disables the custom gradients of functions that this thread traces in the block: exported graphs hold none."""
    previous = getattr(_state, "inference_only", False)
    _state.inference_only = True
    try:
        yield
    finally:
        _state.inference_only = previous


def custom_gradient(compute: Callable) -> Callable:
    """Decorates `compute` like `tf.custom_gradient`, except inside `inference_only()`."""
    with_gradient = tf.custom_gradient(compute)

    @functools.wraps(compute)
    def call(*args):
        return compute(*args)[0] if getattr(_state, "inference_only", False) else with_gradient(*args)

    return call
