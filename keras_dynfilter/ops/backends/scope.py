# SPDX-License-Identifier: Apache-2.0
"""Stores what the user requests in this thread: an implementation of the ops, and graphs without custom gradients."""

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
    Outside of such blocks, the environment variable `KERAS_DYNFILTER_IMPLEMENTATION` selects the implementation. If it
    is not set, `"auto"` is selected.

    Args:
        name: `"auto"` (the compiled ops if they are available, otherwise TensorFlow ops), `"native"` (the compiled
            ops; if they are not available, an error with the reason) or `"composite"` (TensorFlow ops only, for
            portable exports).

    Returns:
        A context manager.

    Raises:
        ValueError: On entry into the block, if `name` is not one of these.
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
    """Returns the name of the requested implementation, and the source of the request, in words.

    The sources, in order of precedence: the innermost `with implementation(...)` block, the environment variable, the
    default.

    Raises:
        ValueError: The value of the environment variable is not an implementation.
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
    """Disables custom gradients in functions that this thread traces inside the block, for graphs that are exported."""
    previous = getattr(_state, "inference_only", False)
    _state.inference_only = True
    try:
        yield
    finally:
        _state.inference_only = previous


def custom_gradient(compute: Callable) -> Callable:
    """Decorates `compute` like `tf.custom_gradient`; inside `inference_only()`, the gradient is left out."""
    with_gradient = tf.custom_gradient(compute)

    @functools.wraps(compute)
    def call(*args):
        return compute(*args)[0] if getattr(_state, "inference_only", False) else with_gradient(*args)

    return call
