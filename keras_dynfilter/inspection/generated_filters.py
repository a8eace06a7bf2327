# SPDX-License-Identifier: Apache-2.0
"""The filters that a network generates, for figures and for flow."""

import math

import keras
import tensorflow as tf

from keras_dynfilter.models.dfn.filter_network import normalized_filters
from keras_dynfilter.models.dfn.frame_predictor import FramePredictor


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
        ValueError: The model generates no filters, or is no `FramePredictor` and there are further arguments.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"Expected `model` to be a built keras.Model. Received: model={model!r}")
    if isinstance(model, FramePredictor):
        return model(inputs, return_filters=True, **arguments)["filters"].numpy()
    if arguments:
        expected = f"Expected no further arguments for {model.name}, which is no FramePredictor"
        raise ValueError(f"{expected}. Received: {', '.join(arguments)}")
    if not any(layer.name == "filters" for layer in model.layers):
        raise ValueError(f"Expected `model` to generate filters. Received: {model.name}")
    by_angle = any(layer.name == "angles" for layer in model.layers)
    sources = model.get_layer("angles").output if by_angle else model.inputs[0]
    generator = keras.Model(sources, model.get_layer("filters").output)
    if by_angle:
        filters = generator(tf.reshape(tf.cast(inputs, sources.dtype), [-1, 1]))
        size = math.isqrt(filters.shape[-1])
        return tf.reshape(filters, [-1, size, size]).numpy()
    return normalized_filters(model.get_layer("right"), generator(inputs))[0].numpy()
