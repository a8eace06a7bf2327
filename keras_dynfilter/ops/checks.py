# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of public functions and layers. Errors read "Expected `argument` to be ... Received: ..."."""

import math
import numbers
from collections.abc import Iterable
from typing import Any, TypeVar

import tensorflow as tf

MAX_SIZE = 2**31 - 1  # The compiled ops compute offsets inside a window with 32-bit integers.
DTYPES = ("float16", "bfloat16", "float32", "float64")

Value = TypeVar("Value")


def tensors(**arguments: Any) -> list[tf.Tensor]:
    """Converts the arguments to tensors, and checks that all have the same floating-point dtype.

    Args:
        **arguments: Tensors, variables, arrays, or nested lists of numbers, by name. After the first argument, lists
            are converted to the dtype of the first argument.

    Returns:
        The tensors in the order of the arguments.

    Raises:
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
    """
    first, *others = arguments.items()
    converted = [_tensor(*first)]
    dtype = converted[0].dtype
    if dtype.name not in DTYPES:
        raise TypeError(f"Expected `{first[0]}` to have a dtype of {', '.join(DTYPES)}. Received: {dtype.name}")
    for name, value in others:
        has_dtype = tf.is_tensor(value) or hasattr(value, "dtype")
        value = _tensor(name, value, None if has_dtype else dtype)
        if value.dtype != dtype:
            raise TypeError(
                f"Expected `{name}` to have the dtype of `{first[0]}`, {dtype.name}. Received: {value.dtype.name}"
            )
        converted.append(value)
    return converted


def _tensor(name, value, dtype=None):
    try:
        return tf.convert_to_tensor(value, dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected `{name}` to be a tensor. Received: {type(value).__name__}: {error}") from error


def accumulation(dtype: tf.DType) -> tf.DType:
    """Returns the dtype in which values of `dtype` are summed: float32 or wider.

    A float16 sum overflows above 65,504, and adding 1 to a float16 sum of 2,048 does not change it.
    """
    return tf.float64 if dtype == tf.float64 else tf.float32


def check_shape(name: str, value: tf.Tensor, **expected: int | None) -> None:
    """Raises a ValueError unless the static shape of `value` is compatible with the expected sizes.

    Args:
        name: Name of the argument, for the error text.
        value: The tensor.
        **expected: The expected size of each dimension, in order, by the name of the dimension. None allows any size.
    """
    shape = value.shape
    if shape.rank is None or shape.is_compatible_with(list(expected.values())):
        return
    sizes = ", ".join(f"{dimension}={'any' if size is None else size}" for dimension, size in expected.items())
    raise ValueError(f"Expected `{name}` to have shape ({sizes}). Received: {name}.shape={tuple(shape)}")


def check_rank(name: str, value: tf.Tensor, meaning: str, rank: int = 4) -> tf.Tensor:
    """Returns `value` with a static shape of `rank` dimensions.

    Args:
        name: Name of the argument, for the error text.
        value: The tensor.
        meaning: Description of the dimensions, for the error text.
        rank: The number of dimensions.

    Raises:
        ValueError: `value` has another rank. If the rank is unknown when a graph is traced, the graph checks it when it
            runs.
    """
    if value.shape.rank is None:
        return tf.ensure_shape(value, [None] * rank)
    if value.shape.rank != rank:
        raise ValueError(f"Expected `{name}` to have rank {rank} ({meaning}). Received: {name}.shape={value.shape}")
    return value


def integer(value: Any) -> bool:
    """Returns whether `value` is an integer. A boolean is not an integer here: `heads=True` is a mistake."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def number(
    value: Any,
    name: str,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    expected: str | None = None,
) -> float:
    """Returns `value`, a finite real number within the given bounds, as a float. A boolean is not a number here.

    Args:
        value: The argument to check.
        name: Name of the argument, for the error text.
        above: Exclusive lower bound, or None.
        at_least: Inclusive lower bound, or None.
        below: Exclusive upper bound, or None.
        at_most: Inclusive upper bound, or None.
        expected: Description of a valid argument, for the error text. By default it is derived from the bounds:
            "a positive number", "a non-negative number", "a number of at least 1 and below 64", "a finite number".

    Raises:
        ValueError: `value` is not a finite real number, or it is outside the bounds.
    """
    valid = (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or float(value) > above)
        and (at_least is None or float(value) >= at_least)
        and (below is None or float(value) < below)
        and (at_most is None or float(value) <= at_most)
    )
    if not valid:
        expected = expected or _number_in_words(above, at_least, below, at_most)
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
    return float(value)


def _number_in_words(above, at_least, below, at_most):
    bounds = {"above": above, "of at least": at_least, "below": below, "at most": at_most}
    bounds = {words: bound for words, bound in bounds.items() if bound is not None}
    if not bounds:
        return "a finite number"
    if bounds == {"above": 0}:
        return "a positive number"
    if bounds == {"of at least": 0}:
        return "a non-negative number"
    return "a number " + " and ".join(f"{words} {bound}" for words, bound in bounds.items())


def positive(value: Any, name: str) -> int:
    """Returns `value`, a positive integer.

    Raises:
        ValueError: `value` is not a positive integer, or it is above 2^31 - 1.
    """
    if not integer(value) or value < 1:
        raise ValueError(f"Expected `{name}` to be a positive integer. Received: {name}={value!r}")
    if value > MAX_SIZE:
        raise ValueError(f"Expected `{name}` to be at most {MAX_SIZE}. Received: {name}={value!r}")
    return int(value)


def pair(value: Any, name: str) -> tuple[int, int]:
    """Returns `value`, a positive integer or a pair of positive integers, as a tuple `(vertical, horizontal)`.

    Raises:
        ValueError: `value` is not a positive integer or a pair of them, or a number is above 2^31 - 1.
    """
    values = (value, value) if integer(value) else value
    try:
        values = tuple(values)
        valid = len(values) == 2 and all(integer(size) and size >= 1 for size in values)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"Expected `{name}` to be a positive integer or a pair of them. Received: {name}={value!r}")
    if max(values) > MAX_SIZE:
        raise ValueError(f"Expected `{name}` to be at most {MAX_SIZE}. Received: {name}={value!r}")
    return int(values[0]), int(values[1])


def choice(value: Value, name: str, allowed: Iterable) -> Value:
    """Returns `value` if it is one of the values in `allowed`.

    Raises:
        ValueError: `value` is not in `allowed`.
    """
    try:
        # A set refuses arrays, which have no hash. A list would compare them element by element.
        valid = value in set(allowed)
    except TypeError:
        valid = False
    if not valid:
        expected = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"Expected `{name}` to be one of {expected}. Received: {name}={value!r}")
    return value
