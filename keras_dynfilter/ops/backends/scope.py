# SPDX-License-Identifier: Apache-2.0
"""Stores what the user requests in this context: an implementation of the ops, and graphs without custom gradients."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

import tensorflow as tf

from keras_dynfilter.ops.checks import choice

IMPLEMENTATIONS = ("auto", "native", "composite")
VARIABLE = "KERAS_DYNFILTER_IMPLEMENTATION"


class _Block:
    """A `with` block that was entered, and its request."""

    def __init__(self, request: Any):
        self.request = request
        self.ended = False  # set only if the block ended in another context than it was entered in


# The entered blocks of a context, from the outermost to the innermost.
_Blocks: TypeAlias = ContextVar[tuple[_Block, ...]]
_implementations: _Blocks = ContextVar("keras_dynfilter_implementations", default=())
_inference_only: _Blocks = ContextVar("keras_dynfilter_inference_only", default=())


@contextlib.contextmanager
def _enter(blocks: _Blocks, request: Any) -> Iterator[None]:
    """Adds a request for the duration of a `with` block.

    Blocks may end in any order, because generators that are suspended inside a block delay its end. So the end of a
    block removes its own request, and never restores an earlier state.
    """
    block = _Block(request)
    token = blocks.set((*(other for other in blocks.get() if not other.ended), block))
    try:
        yield
    finally:
        others = tuple(other for other in blocks.get() if other is not block)
        try:
            blocks.reset(token)
        except ValueError:  # Another thread or task closed a generator: the request is still in the first context.
            block.ended = True
        blocks.set(others)


def _innermost(blocks: _Blocks) -> Any:
    """Returns the request of the innermost block of this context, or None."""
    entered = blocks.get()
    # Every call of an op comes here, mostly outside of all blocks.
    return next((block.request for block in reversed(entered) if not block.ended), None) if entered else None


@contextlib.contextmanager
def implementation(name: str) -> Iterator[None]:
    """Selects the implementation of the ops that are called or traced inside the `with` block.

    The selection applies to the current context (`contextvars`): to the current thread, or to the current task of
    `asyncio`. A new task starts with the selection of the code that creates it, a new thread with the default. A
    generator belongs to the context of the code that resumes it: while it is suspended inside a block, the selection
    applies to this code, too. A `tf.function` keeps the implementation under which it was traced.

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
    with _enter(_implementations, choice(name, "name", IMPLEMENTATIONS)):
        yield


def requested() -> tuple[str, str]:
    """Returns the name of the requested implementation, and the source of the request, in words.

    The sources, in order of precedence: the innermost `with implementation(...)` block, the environment variable, the
    default.

    Raises:
        ValueError: The value of the environment variable is not an implementation.
    """
    name = _innermost(_implementations)
    if name is not None:
        return name, "keras_dynfilter.implementation"
    name = os.environ.get(VARIABLE)
    if name:
        return choice(name, VARIABLE, IMPLEMENTATIONS), f"the environment variable {VARIABLE}"
    return "auto", "the default"


@contextlib.contextmanager
def inference_only() -> Iterator[None]:
    """Leaves out custom gradients and run-time checks in functions that are traced inside the block, for exports.

    It applies to the same context as `implementation`.
    """
    with _enter(_inference_only, True):
        yield


def is_inference_only() -> bool:
    """Returns whether the current code is inside `inference_only()`."""
    return bool(_innermost(_inference_only))


def custom_gradient(compute: Callable) -> Callable:
    """Decorates `compute` like `tf.custom_gradient`; inside `inference_only()`, the gradient is left out."""
    with_gradient = tf.custom_gradient(compute)

    @functools.wraps(compute)
    def call(*args):
        return compute(*args)[0] if is_inference_only() else with_gradient(*args)

    return call
