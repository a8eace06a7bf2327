# SPDX-License-Identifier: Apache-2.0
"""Inspects filter repository networks: returns coefficients, filters and maps, and swaps filters between images."""

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.models.filter_repository.autoencoder import RECONSTRUCTION


def repository_swap(model: keras.Model, name: str = "repository_swap") -> keras.Model:
    """Builds a network that predicts for images with the filters generated from other images.

    Args:
        model: A model from `repository_mnist`, `repository_mtfl`, `repository_cifar10` or `generated_network`.
        name: Name of the new model.

    Returns:
        A model that maps `{"images": [batch, ...], "filters_of": [batch, ...]}` to the predictions of `model` for
        `images`, with the filters that `model` generates for `filters_of`. It shares the weights of `model`.

    Raises:
        ValueError: `model` has no layers `"generator"` and `"prediction"`.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 4.4.
    """
    generator, prediction = _generator_and_prediction(model)
    images = keras.Input(generator.input_shape[1:], name="images")
    filters_of = keras.Input(generator.input_shape[1:], name="filters_of")
    outputs = prediction({"images": images, **_features(generator(filters_of))})
    return keras.Model({"images": images, "filters_of": filters_of}, outputs, name=name)


def inspect_repository(model: keras.Model, images: np.ndarray | tf.Tensor) -> dict[str, dict[str, np.ndarray]]:
    """Returns the coefficients, filters and maps of the generated convolutions for `images`.

    Args:
        model: A model from `repository_mnist`, `repository_mtfl`, `repository_cifar10` or `generated_network`.
        images: `[batch, height, width, channels]`, in [0, 1], processed as one batch.

    Returns:
        A dict from the name of each generated convolution, `"conv_1"`, ..., to a dict of arrays: `"coefficients"`,
        `[batch, base_filters, filters]`; `"filters"`, `[batch, kernel_h, kernel_w, channels, filters]`; and `"maps"`,
        the outputs of the layer, `[batch, out_height, out_width, filters]`.

    Raises:
        ValueError: `model` has no layers `"generator"` and `"prediction"`.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 4.4.
    """
    generator, prediction = _generator_and_prediction(model)
    layers = [layer for layer in prediction.layers if isinstance(layer, RepositoryConv2D)]
    images = tf.cast(images, generator.inputs[0].dtype)
    features = _features(generator(images, training=False))
    # One call returns the second input (the features) and the output (the maps) of each layer.
    probe = keras.Model(prediction.input, [tensor for layer in layers for tensor in (layer.input[1], layer.output)])
    tensors = probe({"images": images, **features}, training=False)
    return {
        layer.name: {
            "coefficients": layer.coefficients(vector).numpy(),
            "filters": layer.generated_filters(vector).numpy(),
            "maps": maps.numpy(),
        }
        for layer, vector, maps in zip(layers, tensors[::2], tensors[1::2])
    }


def _features(outputs):
    return {key: value for key, value in outputs.items() if key != RECONSTRUCTION}


def _generator_and_prediction(model):
    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    if not {"generator", "prediction"} <= set(layers):
        expected = "Expected `model` to have the layers 'generator' and 'prediction', as repository_mnist has"
        raise ValueError(f"{expected}. Received: {model!r}")
    return layers["generator"], layers["prediction"]
