# SPDX-License-Identifier: Apache-2.0
"""Which implementation an op runs on: chosen by rule before the call, never by rescue after a failure."""

import contextlib
import functools
import os
import threading

import tensorflow as tf

from keras_dynfilter.ops.checks import choice

IMPLEMENTATIONS = ("auto", "native", "composite")
VARIABLE = "KERAS_DYNFILTER_IMPLEMENTATION"

_state = threading.local()


@contextlib.contextmanager
def implementation(name):
    """Selects the implementation of the ops that are called, or traced, inside the `with` block.

    Args:
        name: `"auto"` (the compiled ops where they can be had, otherwise TensorFlow ops), `"native"` (the compiled
            ops, or an error that says why not) or `"composite"` (TensorFlow ops only, for portable exports).

    The choice belongs to the current thread. A `tf.function` keeps the choice under which it was traced.

    Returns:
        A context manager.

    Raises:
        ValueError: On entry, where `name` is none of these.
        RuntimeError: When an op is called under `"native"` and the compiled ops cannot be had.

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


def custom_gradient(compute):
    """`tf.custom_gradient`, but for `inference_only`."""
    with_gradient = tf.custom_gradient(compute)

    @functools.wraps(compute)
    def call(*args):
        return compute(*args)[0] if getattr(_state, "inference_only", False) else with_gradient(*args)

    return call


@contextlib.contextmanager
def inference_only():
    """Leaves the gradients of TensorFlow to what is traced in this thread: exported graphs hold no other ones."""
    previous = getattr(_state, "inference_only", False)
    _state.inference_only = True
    try:
        yield
    finally:
        _state.inference_only = previous


def requested():
    """The implementation asked for, and by what: the innermost `with` block, the environment, or the default."""
    name = getattr(_state, "name", None)
    if name is not None:
        return name, "keras_dynfilter.implementation"
    name = os.environ.get(VARIABLE)
    if name:
        return choice(name, VARIABLE, IMPLEMENTATIONS), f"the environment variable {VARIABLE}"
    return "auto", "the default"
