# SPDX-License-Identifier: Apache-2.0
"""Scales the channel counts of the DFN networks, and checks their image shapes."""

from collections.abc import Sequence
from typing import Any

from keras_dynfilter.ops.checks import number

Channels = dict[str, Any]  # channel counts by name: integers, or tuples of integers


def scale_channels(channels: Channels, width: float) -> Channels:
    """Multiplies channel counts by `width` and rounds them; every count is at least 1.

    Args:
        channels: Channel counts by name.
        width: Positive number.

    Raises:
        ValueError: `width` is not a positive number.
    """
    width = number(width, "width", above=0)

    def scale(count):
        return max(1, round(count * width))

    return {
        name: tuple(map(scale, count)) if isinstance(count, tuple) else scale(count) for name, count in channels.items()
    }


def check_image_shape(image_shape: Sequence[int | None]) -> None:
    """Raises a ValueError unless `image_shape` is `(height, width, 1)`."""
    if len(image_shape) != 3 or image_shape[-1] != 1:
        raise ValueError(f"Expected `image_shape` to be (height, width, 1). Received: image_shape={image_shape!r}")
