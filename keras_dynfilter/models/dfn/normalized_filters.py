# SPDX-License-Identifier: Apache-2.0
"""Computes the filters that a local filtering layer applies from the values that it receives."""

import math

import tensorflow as tf

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.ops.backends.softmax import softmax


def normalized_filters(layer: DynamicLocalFilter2D, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Splits and normalises the values that a `DynamicLocalFilter2D` receives, as the layer itself does.

    Args:
        layer: The layer, channels-last.
        values: The values that the layer receives, `[..., layer.count_filter_values()]`.

    Returns:
        `(filters, bias)`: the filters that the layer applies, `[..., taps]`; and the dynamic bias, `[..., 1]`, or None
        if the layer has none. The filters and the bias are float64 if `values` are float64, else float32.
    """
    if values.dtype != tf.float64:
        values = tf.cast(values, tf.float32)
    filters, bias = layer.split_filters(values)
    if layer.normalization is None:
        return filters, bias
    # Each filter has its own softmax; separable filters have one for the vertical and one for the horizontal part.
    parts = list(layer.kernel_size) if layer.separable else [math.prod(layer.kernel_size)]
    parts *= filters.shape[-1] // sum(parts)
    return tf.concat([softmax(part) for part in tf.split(filters, parts, axis=-1)], axis=-1), bias
