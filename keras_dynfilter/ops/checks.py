# SPDX-License-Identifier: Apache-2.0
"""Checks that the public functions share: dtypes and shapes, with errors that name what was expected."""

import math
import numbers

import tensorflow as tf

MAX_SIZE = 2**31 - 1  # The compiled ops compute offsets inside a window in 32 bits.
DTYPES = ("float16", "bfloat16", "float32", "float64")


def tensors(**arguments):
    """Converts the arguments to tensors of one floating-point dtype, that of the first."""
    first, *others = arguments.items()
    converted = [_tensor(*first)]
    dtype = converted[0].dtype
    if dtype.name not in DTYPES:
        raise TypeError(f"Expected `{first[0]}` to have a dtype of {', '.join(DTYPES)}. Received: {dtype.name}")
    for name, value in others:
        python = not tf.is_tensor(value) and not hasattr(value, "dtype")  # its numbers take the dtype of the first
        value = _tensor(name, value, dtype if python else None)
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


def accumulation(dtype):
    """The dtype in which values of `dtype` are added up: float16 ends at 65,504, and counts to 2,048."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def check_shape(name, value, **dims):
    """Raises unless the static shape of `value` agrees with `dims`, sizes by name in order (None: any size)."""
    shape = value.shape
    if shape.rank is None or shape.is_compatible_with(list(dims.values())):
        return
    expected = ", ".join(f"{key}={'any' if size is None else size}" for key, size in dims.items())
    raise ValueError(f"Expected `{name}` to have shape ({expected}). Received: {name}.shape={tuple(shape)}")


def check_rank(name, value, meaning, rank=4):
    """Returns `value`, known to have `rank` dimensions."""
    if value.shape.rank is None:
        return tf.ensure_shape(value, [None] * rank)
    if value.shape.rank != rank:
        raise ValueError(f"Expected `{name}` to have rank {rank} ({meaning}). Received: {name}.shape={value.shape}")
    return value


def integer(value):
    """Whether `value` is an integer. A boolean is none: `heads=True` is a mistake."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def number(value, name, above=None, at_least=None, below=None, at_most=None, expected=None):
    """Returns `value`, a finite real number within the given bounds, as a float. A boolean is not a number.

    Args:
        value: The argument to check.
        name: Name of the argument, for the error text.
        above: Exclusive lower bound, or None.
        at_least: Inclusive lower bound, or None.
        below: Exclusive upper bound, or None.
        at_most: Inclusive upper bound, or None.
        expected: What the error text says that the argument must be. By default it is derived from the bounds:
            "a positive number", "a non-negative number", "a number of at least 1 and below 64", "a finite number".

    Raises:
        ValueError: `value` is not such a number.
    """
    valid = (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    if not valid:
        expected = expected or _number_in_words(above, at_least, below, at_most)
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
    return float(value)


def _number_in_words(above, at_least, below, at_most):
    bounds = {"above": above, "of at least": at_least, "below": below, "of at most": at_most}
    bounds = {words: bound for words, bound in bounds.items() if bound is not None}
    if not bounds:
        return "a finite number"
    if bounds == {"above": 0}:
        return "a positive number"
    if bounds == {"of at least": 0}:
        return "a non-negative number"
    return "a number " + " and ".join(f"{words} {bound}" for words, bound in bounds.items())


def positive(value, name):
    """Returns `value`, a positive integer."""
    if not integer(value) or value < 1:
        raise ValueError(f"Expected `{name}` to be a positive integer. Received: {name}={value!r}")
    if value > MAX_SIZE:
        raise ValueError(f"Expected `{name}` to be at most {MAX_SIZE}. Received: {name}={value!r}")
    return int(value)


def pair(value, name):
    """Returns `value`, a positive integer or a pair of them, as a tuple `(vertical, horizontal)`."""
    values = (value, value) if integer(value) else value
    try:
        values = tuple(values)
        valid = len(values) == 2 and all(integer(v) and v >= 1 for v in values)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"Expected `{name}` to be a positive integer or a pair of them. Received: {name}={value!r}")
    if max(values) > MAX_SIZE:
        raise ValueError(f"Expected `{name}` to be at most {MAX_SIZE}. Received: {name}={value!r}")
    return int(values[0]), int(values[1])


def choice(value, name, allowed):
    """Returns `value` if it is one of `allowed`."""
    try:
        valid = value in set(allowed)  # by hash: arrays have none, and would compare element by element
    except TypeError:
        valid = False
    if not valid:
        expected = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"Expected `{name}` to be one of {expected}. Received: {name}={value!r}")
    return value
