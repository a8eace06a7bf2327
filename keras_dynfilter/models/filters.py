# SPDX-License-Identifier: Apache-2.0
"""The filters that a network generates, for figures and for flow."""

import math

import keras
import tensorflow as tf


def generated_filters(model, inputs, **arguments):
    """The filters that a model of `keras_dynfilter.models` generates.

    Args:
        model: The model: `dfn_steerable`, `dfn_stereo`, or a `FramePredictor` such as `dfn_moving_mnist`.
        inputs: What the filters are generated from: angles `[count]` in radians, images `[batch, height, width, 1]`,
            or frames `[batch, frames, height, width, 1]`.
        **arguments: Arguments of the call of a `FramePredictor`, such as `steps`.

    Returns:
        NumPy array: `[count, kernel_size, kernel_size]` for angles; after the softmax
        `[batch, height, width, taps]` for images and `[batch, steps, height, width, taps]` for frames, with the taps
        row by row.

    Raises:
        ValueError: The model generates no filters.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"Expected `model` to be a built keras.Model. Received: model={model!r}")
    if hasattr(model, "output_frames"):
        return model(inputs, return_filters=True, **arguments)["filters"].numpy()
    by_angle = any(layer.name == "angles" for layer in model.layers)
    sources = model.get_layer("angles").output if by_angle else model.inputs[0]
    generator = keras.Model(sources, model.get_layer("filters").output)
    if by_angle:
        filters = generator(tf.reshape(tf.cast(inputs, sources.dtype), [-1, 1]))
        size = math.isqrt(filters.shape[-1])
        return tf.reshape(filters, [-1, size, size]).numpy()
    return normalized_filters(model.layers[-1], generator(inputs))[0].numpy()


def normalized_filters(layer, values):
    """What a `DynamicLocalFilter2D` makes of the values that it is given.

    Args:
        layer: The layer, channels last.
        values: `[..., filter_channels]`.

    Returns:
        `(filters, bias)` in float32 at least: filters as they are applied, `[..., taps]`, and the dynamic bias,
        `[..., 1]`, or None.
    """
    if values.dtype != tf.float64:
        values = tf.cast(values, tf.float32)
    filters, bias = layer.split_filters(values)
    if layer.normalization is None:
        return filters, bias
    window = layer.kernel_size if layer.separable else (math.prod(layer.kernel_size),)
    window = list(window) * (filters.shape[-1] // sum(window))
    return tf.concat([tf.nn.softmax(part) for part in tf.split(filters, window, axis=-1)], axis=-1), bias
