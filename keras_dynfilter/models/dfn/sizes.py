# SPDX-License-Identifier: Apache-2.0
"""Scales the channel counts of the DFN networks."""

from typing import Any

from keras_dynfilter.models.argument_checks import MAX_COUNT
from keras_dynfilter.ops.checks import number

Channels = dict[str, Any]  # channel counts by name: integers, or tuples of integers


def scale_channels(channels: Channels, width: float) -> Channels:
    """Multiplies channel counts by `width` and rounds them; every count is at least 1.

    Args:
        channels: Channel counts by name.
        width: Positive number.

    Raises:
        ValueError: `width` is not a positive number, or a count would be above `MAX_COUNT`.
    """
    width = number(width, "width", above=0)

    def scale(count):
        if count * width > MAX_COUNT:
            raise ValueError(f"Expected `width` to give at most {MAX_COUNT} channels. Received: {width=}")
        return max(1, round(count * width))

    return {
        name: tuple(map(scale, count)) if isinstance(count, tuple) else scale(count) for name, count in channels.items()
    }
