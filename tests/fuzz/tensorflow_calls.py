# SPDX-License-Identifier: Apache-2.0
"""What the targets that run TensorFlow share: the loaded ops, the check of results, and the texts of TensorFlow."""

import gc
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops.backends import library
from tests.fuzz import fast_reference, problems
from tests.fuzz.failures import Failure, Skipped, check_text, unlimited_memory

# Texts of TensorFlow itself, which it raises before or instead of the code of this project.
FOREIGN = (
    r"[Vv]alue for attr '\w+' of .* is not in the list of allowed values",
    r"[Vv]alue for attr '\w+' of -?\d+ must be at least minimum",
    r"Attr '\w+' of .* Op passed (-?\d+ less than minimum|string '\w+' not in)",
    r"cannot compute .* as input #\d+\(zero-based\) was expected to be",
    r"Inconsistent values for attr 'T'",
    r"that does(n't| not) match type \w+ of argument",  # dtypes that differ, in a graph
    r"Input \d+ of node \S+ was passed \w+ from \S+ incompatible with expected",
    r"OOM when allocating tensor with shape",
    r"keras_dynfilter: out of memory",
    r"Out of memory while trying to allocate|Failed to allocate.*bytes",
    r"Encountered overflow when multiplying",
    r"Shape \[.*\] (results in overflow|would have more than|too large)",
)
REFUSALS = (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError, ValueError, TypeError)
loaded: Any = None
_requests = itertools.count(1)


def setup() -> None:
    """Loads the ops, lets every op run on one thread (the problems are small), and starts the threads of TensorFlow."""
    global loaded
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = library.load()
    if loaded.ops is None:
        raise RuntimeError(f"The compiled ops are not available: {loaded.reason}")
    start_threads()


def start_threads() -> None:
    """Runs a compiled function: XLA starts its threads at the first one, which the limit of memory must not prevent."""
    tf.function(lambda x: x + 1, jit_compile=True)(tf.zeros([1]))


def clean() -> None:
    """Frees graphs, and at times the kernels that TensorFlow keeps for every combination of attributes."""
    from tensorflow.python.eager import context

    gc.collect()
    if next(_requests) % 32 == 0:
        context.context().clear_kernel_cache()


def function_of(raw_op: Any) -> Callable:
    return getattr(loaded.ops, f"keras_dynfilter_{raw_op.function}")


def tensor(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor. Neither NumPy nor TensorFlow has all shapes without elements."""
    try:
        with unlimited_memory():
            return tf.constant(array)
    except ValueError as error:
        raise Skipped(str(error)) from error


def judge(call: problems.Call, exact: dict, compute: Callable[[], Any]) -> bool:
    """Runs a call and checks what came of it. Returns whether it was accepted.

    Args:
        call: The call.
        exact: The operands, float64.
        compute: Returns the result.
    """
    try:
        actual = compute()
    except REFUSALS as error:
        out_of_memory = isinstance(error, tf.errors.ResourceExhaustedError)
        if call.is_correct and not out_of_memory and not call.geometry.is_large(call.raw_op):
            raise Failure("wrong decision", f"a correct call was refused: {type(error).__name__}: {error}") from error
        check_text(error, call.names(), FOREIGN)
        return False
    if not call.is_correct:
        raise Failure("wrong decision", f"a call was accepted that is not correct: {call.reason}")
    check_result(call, exact, actual)
    return True


def check_result(call: problems.Call, exact: dict, actual: Any) -> None:
    wrt = call.raw_op.wrt
    expected = call.geometry.shape(wrt or "upstream")
    if tuple(actual.shape) != expected:
        raise Failure("wrong value", f"expected shape {expected}, received {actual.shape}")
    if 0 in expected or call.geometry.is_large(call.raw_op):  # NumPy has not all arrays without elements
        return
    with unlimited_memory():
        fast_reference.compare(np.asarray(actual), *fast_reference.derivative(call.geometry, wrt, exact), call.dtype)
