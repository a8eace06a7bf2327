# SPDX-License-Identifier: Apache-2.0
"""Joins a feature generator and a prediction network whose convolutions have generated filters."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.models.filter_repository.autoencoder import RECONSTRUCTION
from keras_dynfilter.models.filter_repository.feature_generator import feature_numbers


def generated_network(
    generator: keras.Model, build: Callable[[tf.Tensor, dict[int, tf.Tensor]], tf.Tensor], output: str, name: str
) -> keras.Model:
    """Joins a `feature_generator` and a prediction network whose filters are generated from its features.

        images -> generator -> features, reconstruction
        images, features -> prediction -> result

    Args:
        generator: A model that `feature_generator` returned.
        build: Function that builds the prediction network. Its arguments are the images, `[batch, height, width,
            channels]`, and the features, a dict from the number of the encoder layer to `[batch, channels]`. It returns
            the result. The arguments and the result are tensors of a Keras model. `layers.RepositoryConv2D` generates
            filters from the features.
        output: Name of the result.
        name: Name of the model.

    Returns:
        A model that maps images to a dict of the result, named `output`, and the `"reconstruction"`. Two of its layers
        are models: `generator`; and `"prediction"`, which maps a dict of `"images"`, `"features_1"`, ... to the result.
        `inspection.repository_swap` and `inspection.inspect_repository` accept the model if the generator is named
        `"generator"`, its default name.

    Raises:
        ValueError: The outputs of `generator` are not features and a reconstruction.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """
    features, numbers = _features_of(generator)
    image_shape = generator.input_shape[1:]
    images = keras.Input(image_shape, name="images")
    vectors = {key: keras.Input(value.shape[1:], name=key) for key, value in features.items()}
    result = build(images, {numbers[key]: vector for key, vector in vectors.items()})
    prediction = keras.Model({"images": images, **vectors}, result, name="prediction")

    images = keras.Input(image_shape, name="images")
    generated = dict(generator(images))
    outputs = {RECONSTRUCTION: generated.pop(RECONSTRUCTION), output: prediction({"images": images, **generated})}
    # Keras 2 reports losses by the names of the output layers, Keras 3 by the keys of the outputs: give the layers the
    # names of the keys.
    outputs = {
        key: keras.layers.Activation("linear", dtype="float32", name=key)(value) for key, value in outputs.items()
    }
    return keras.Model(images, outputs, name=name)


def generated_conv2d(
    inputs: tf.Tensor,
    features: tf.Tensor,
    filters: int,
    kernel_size: int,
    base_filters: int | None = None,
    strides: int = 1,
    name: str | None = None,
    **arguments: Any,
) -> tf.Tensor:
    """Applies a channels-last `RepositoryConv2D`; `**arguments` are further arguments of the layer.

    Raises:
        ValueError: `data_format` is given and is not `"channels_last"`, or the layer rejects an argument.
    """
    if arguments.get("data_format", "channels_last") != "channels_last":
        expected = "Expected `data_format` to be 'channels_last', the only layout of these networks"
        raise ValueError(f"{expected}. Received: data_format={arguments['data_format']!r}")
    arguments = {"name": name, **arguments, "data_format": "channels_last"}
    return RepositoryConv2D(filters, kernel_size, base_filters=base_filters, strides=strides, **arguments)(
        [inputs, features]
    )


def _features_of(generator):
    """Returns two dicts with the names of the features as keys: outputs of `generator`, and encoder layer numbers."""
    outputs = dict(generator.output) if isinstance(generator.output, dict) else {}
    features = {key: value for key, value in outputs.items() if key != RECONSTRUCTION}
    numbers = feature_numbers(features)
    if RECONSTRUCTION not in outputs or not numbers:
        expected = "Expected `generator` to be a model of images to 'features_1', ... and their 'reconstruction'"
        raise ValueError(f"{expected}. Received: {generator!r}, with outputs {list(outputs)}")
    return features, numbers
