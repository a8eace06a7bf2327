# SPDX-License-Identifier: Apache-2.0
"""Checks that the public functions share: dtypes and shapes, with errors that name what was expected."""

import tensorflow as tf

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


def sizes(value, rank):
    """The static shape of `value` as a list of `rank` sizes, None where unknown."""
    return [None] * rank if value.shape.rank is None else value.shape.as_list()
