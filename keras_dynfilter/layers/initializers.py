# SPDX-License-Identifier: Apache-2.0
"""Initializers of the weights from which filters are generated."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Initializer


def fan_out_normal(initializer: Initializer) -> Initializer:
    """Returns a new copy of `initializer`; for None, an untruncated normal initializer with variance `2 / fan_out`."""
    if initializer is None:
        return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return _copy(initializer)


def uniform_by_fan_in(initializer: Initializer, fan_in: int) -> Initializer:
    """Returns a new copy of `initializer`; for None, a uniform initializer within `1 / sqrt(fan_in)` of 0."""
    if initializer is None:
        limit = 1 / math.sqrt(fan_in)
        return keras.initializers.RandomUniform(-limit, limit)
    return _copy(initializer)


def side_by_side(make_initializer: Callable[[], Any], parts: int) -> Any:
    """Returns an initializer that joins the values of `parts` initializers along the last axis.

    Args:
        make_initializer: Function without arguments that returns an initializer. It is called once for each part.
        parts: Positive integer that divides the last axis of the weight.
    """
    if parts == 1:
        return make_initializer()

    def initialize(shape, dtype=None, **_):
        part = (*shape[:-1], shape[-1] // parts)
        return tf.concat([make_initializer()(part, dtype=dtype) for _ in range(parts)], axis=-1)

    return initialize


def drawn_in_float32(initializer: Any) -> Any:
    """Returns an initializer that computes half-precision weights in float32 and then rounds them.

    TensorFlow has no QR decomposition in half precision, which the orthogonal initializer needs.
    """

    def initialize(shape, dtype=None, **options):
        dtype = tf.as_dtype(dtype or keras.backend.floatx())
        if dtype not in (tf.float16, tf.bfloat16):
            return initializer(shape, dtype=dtype, **options)
        return tf.cast(initializer(shape, dtype=tf.float32, **options), dtype)

    return initialize


def _copy(initializer):
    """Returns a copy, because one object without a seed would draw the same numbers for every weight."""
    if isinstance(initializer, keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer
