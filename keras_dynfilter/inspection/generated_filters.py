# SPDX-License-Identifier: Apache-2.0
"""Returns the filters that a DFN network generates, for figures and for optical flow."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.models.dfn.frame_predictor import FramePredictor
from keras_dynfilter.models.dfn.normalized_filters import normalized_filters


def generated_filters(model: keras.Model, inputs: Any, **arguments: Any) -> np.ndarray:
    """Returns the filters that a DFN network generates from `inputs`.

    Args:
        model: A model from `dfn_steerable`, `dfn_stereo` or one of the video networks such as `dfn_moving_mnist`.
        inputs: The inputs of the network that generates the filters: angles in radians, `[count]`; images, `[batch,
            height, width, 1]`; or frames, `[batch, frames, height, width, 1]`.
        **arguments: Further arguments of the call of a video network, such as `steps`.

    Returns:
        For angles, `[count, kernel_size, kernel_size]`. For images, `[batch, height, width, taps]`, and for frames,
        `[batch, steps, height, width, taps]`: filters after the softmax, with taps in row-major order. For
        `dfn_moving_mnist_blended`, the last axis holds the taps of its two filters one after the other.

    Raises:
        ValueError: The model is not built or generates no filters, or there are further arguments and the model is no
            video network.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"Expected `model` to be a built keras.Model. Received: model={model!r}")
    if isinstance(model, FramePredictor):
        return model(inputs, return_filters=True, **arguments)["filters"].numpy()
    if arguments:
        expected = f"Expected no further arguments for {model.name}, which is no FramePredictor"
        raise ValueError(f"{expected}. Received: {', '.join(arguments)}")
    names = {layer.name for layer in model.layers}
    if "filters" not in names:
        raise ValueError(f"Expected `model` to generate filters. Received: {model.name}")
    if "angles" in names:
        return _steered_filters(model, inputs)
    values = keras.Model(model.inputs[0], model.get_layer("filters").output)(inputs)
    return normalized_filters(model.get_layer("right"), values)[0].numpy()


def _steered_filters(model, angles):
    source = model.get_layer("angles").output
    generator = keras.Model(source, model.get_layer("filters").output)
    filters = generator(tf.reshape(tf.cast(angles, source.dtype), [-1, 1]))
    size = math.isqrt(filters.shape[-1])
    return tf.reshape(filters, [-1, size, size]).numpy()
