# SPDX-License-Identifier: Apache-2.0
"""Checks arguments of the functions that build networks: counts, image shapes, windows, flags and activations.

The bounds refuse numbers with which a network would never fit into memory, before any weight is created.
"""

from typing import Any

import keras

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.geometry import Geometry

MAX_COUNT = 2**16  # of channels, of filters, of pixels along one axis, of frames
MAX_CLASSES = 2**24
MAX_TAPS = 2**20


def count(value: Any, name: str, at_most: int = MAX_COUNT) -> int:
    """Returns `value`, a positive integer.

    Raises:
        ValueError: `value` is not a positive integer, or it is above `at_most`.
    """
    if checks.positive(value, name) > at_most:
        raise ValueError(f"Expected `{name}` to be at most {at_most}. Received: {name}={value!r}")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """Returns `value`, False or True, or raises a ValueError."""
    return bool(checks.choice(value, name, (False, True)))


def activation(value: Any, name: str) -> Any:
    """Returns `value`, an activation that Keras knows or None, or raises a ValueError."""
    try:
        keras.activations.get(value)
    except Exception as error:  # of any type, as it depends on the value
        expected = f"Expected `{name}` to be None, or the name of a Keras activation, or a function"
        raise ValueError(f"{expected}. Received: {name}={value!r}") from error
    return value


def image_shape(
    value: Any, name: str, channels: int | None = None, known: bool = False
) -> tuple[int | None, int | None, int]:
    """Returns `value`, the shape of an image, as a tuple `(height, width, channels)`.

    Args:
        value: The argument to check.
        name: Name of the argument, for the error text.
        channels: The expected number of channels. None: any number.
        known: Whether height and width may not be None.

    Raises:
        ValueError: `value` is not as described, or a size is above `MAX_COUNT`.
    """
    sizes = tuple(value) if isinstance(value, (tuple, list)) else ()
    valid = len(sizes) == 3 and channels in (None, sizes[-1])
    for axis, size in enumerate(sizes):
        may_be_none = axis < 2 and not known
        valid = valid and (may_be_none if size is None else checks.integer(size) and 0 < size <= MAX_COUNT)
    if not valid:
        expected = f"(height, width, {channels or 'channels'}) with sizes from 1 to {MAX_COUNT}"
        expected += "" if known else "; height and width may be None"
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
    height, width, depth = sizes
    return height, width, depth


def window(kernel_size: Any) -> tuple[int, int]:
    """Returns `kernel_size`, an odd positive integer or a pair of them, as a tuple `(vertical, horizontal)`.

    Raises:
        ValueError: `kernel_size` is not as described, or the window has more than `MAX_TAPS` taps.
    """
    height, width = checks.pair(kernel_size, "kernel_size")
    if height * width > MAX_TAPS:
        raise ValueError(f"Expected `kernel_size` to have at most {MAX_TAPS} taps. Received: {kernel_size=}")
    return Geometry.make(kernel_size).kernel_size
