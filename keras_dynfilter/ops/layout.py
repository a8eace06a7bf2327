# SPDX-License-Identifier: Apache-2.0
"""Converts tensors and shapes between the data formats channels-last and channels-first, and reads their sizes.

The package computes in channels-last order. Public functions and layers convert their arguments and results.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.ops.checks import choice

DATA_FORMATS = ("channels_last", "channels_first")


def standardize_data_format(data_format: str | None) -> str:
    """Returns `data_format`, or Keras's default (`keras.backend.image_data_format()`) for None."""
    data_format = keras.backend.image_data_format() if data_format is None else data_format
    return choice(data_format, "data_format", DATA_FORMATS)


def to_channels_last(images: tf.Tensor) -> tf.Tensor:
    """Transposes `[batch, channels, height, width]` to `[batch, height, width, channels]`."""
    return tf.transpose(images, [0, 2, 3, 1])


def to_channels_first(images: tf.Tensor) -> tf.Tensor:
    """Transposes `[batch, height, width, channels]` to `[batch, channels, height, width]`."""
    return tf.transpose(images, [0, 3, 1, 2])


def shape_to_channels_last(shape: Sequence) -> tuple:
    """Reorders the shape `(batch, channels, ...)` to `(batch, ..., channels)`."""
    batch, channels, *spatial_sizes = shape
    return (batch, *spatial_sizes, channels)


def shape_to_channels_first(shape: Sequence) -> tuple:
    """Reorders the shape `(batch, ..., channels)` to `(batch, channels, ...)`."""
    batch, *spatial_sizes, channels = shape
    return (batch, channels, *spatial_sizes)


def static_sizes(value: tf.Tensor, rank: int) -> list[int | None]:
    """Returns the static shape of `value` as a list of `rank` sizes. Unknown sizes are None."""
    return [None] * rank if value.shape.rank is None else value.shape.as_list()


def sizes(value: tf.Tensor) -> list[Any]:
    """Returns the shape of `value` as a list: integers for known sizes, scalar tensors for unknown sizes."""
    dynamic = tf.shape(value)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(value.shape.as_list())]
