# SPDX-License-Identifier: Apache-2.0
"""Builds the network that maps an image to feature vectors, from which other layers generate filters."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.models.baselines.blocks import conv_norm_relu, relu
from keras_dynfilter.models.filter_repository.autoencoder import RECONSTRUCTION, autoencoder

Windows = Sequence[tuple[int, int, int]]  # (kernel_size, strides, padding) of each convolution
FEATURES = "features_"  # outputs are named features_1, features_2, ..., by the number of the encoder layer


def feature_generator(
    image_shape: tuple[int, int, int],
    encoder: Sequence[tuple[int, int]],
    decoder: Sequence[int | None],
    windows: Sequence[Windows | None],
    slope: float = 0.01,
    name: str = "generator",
    **arguments: Any,
) -> keras.Model:
    """Builds an `autoencoder` and one `dimension_reduction` for each encoder layer that supplies features.

        images -> autoencoder -> reconstruction
        maps of encoder layer i -> dimension reduction -> features i

    Args:
        image_shape: `(height, width, channels)`.
        encoder: `(channels, strides)` of each encoder layer.
        decoder: Channels of each decoder layer, or None, as in `autoencoder`.
        windows: For each encoder layer, the argument `windows` of its `dimension_reduction`; None if the layer supplies
            no features.
        slope: Slope of the leaky ReLUs of the dimension reductions below zero.
        name: Name of the model.
        **arguments: Further arguments of `autoencoder`.

    Returns:
        A model that maps images, `[batch, height, width, channels]` in [0, 1], to a dict: `"features_1"`,
        `"features_2"`, ..., numbered like the encoder layers, each `[batch, channels of the layer]`; and
        `"reconstruction"`, in the shape of the images.

    Raises:
        ValueError: `windows` and `encoder` differ in length, or `autoencoder` or `dimension_reduction` rejects an
            argument.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """
    if len(windows) != len(encoder):
        raise ValueError(f"Expected `windows` for each encoder layer, or None. Received: {windows=}, {encoder=}")
    images = keras.Input(image_shape, name="images")
    encoder_maps, reconstruction = autoencoder(images, encoder, decoder, **arguments)
    outputs = {
        feature_name(number): dimension_reduction(maps, layer_windows, slope, feature_name(number))
        for number, (maps, layer_windows) in enumerate(zip(encoder_maps, windows), 1)
        if layer_windows is not None
    }
    return keras.Model(images, {**outputs, RECONSTRUCTION: reconstruction}, name=name)


def dimension_reduction(inputs: tf.Tensor, windows: Windows, slope: float = 0.01, name: str = "features") -> tf.Tensor:
    """Reduces maps to one feature vector: convolutions that shrink the maps to one position, then a dense layer.

    Args:
        inputs: Tensor of a Keras model, `[batch, height, width, channels]`.
        windows: `(kernel_size, strides, padding)` of each convolution; `padding` is in pixels on each side.
        slope: Slope of the leaky ReLUs below zero.
        name: Name of the last layer, and prefix of the names of the other layers.

    Returns:
        `[batch, channels]`.

    Raises:
        ValueError: The convolutions do not shrink the maps to one position.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 6 and 7, 10 to 14 and 17 to 20.
    """
    outputs, channels = inputs, inputs.shape[-1]
    for index, (kernel_size, strides, padding) in enumerate(windows, 1):
        outputs = conv_norm_relu(outputs, channels, kernel_size, strides, padding, slope, f"{name}_{index}")
    if tuple(outputs.shape[1:3]) != (1, 1):
        expected = f"Expected `windows` to shrink {tuple(inputs.shape[1:3])} to one position"
        raise ValueError(f"{expected}. Received: {windows}, which end at {tuple(outputs.shape[1:3])}")
    outputs = keras.layers.Flatten(data_format="channels_last", name=f"{name}_flat")(outputs)
    outputs = keras.layers.Dense(channels, name=f"{name}_dense")(outputs)
    return relu(outputs, name, slope)


def feature_name(number: int) -> str:
    """Returns the name of the features of the encoder layer with this number; numbers start at 1."""
    return f"{FEATURES}{number}"


def feature_numbers(names: Iterable[str]) -> dict[str, int] | None:
    """Returns the number of the encoder layer for each name, or None if one of `names` is no name of features."""
    if not all(name.startswith(FEATURES) and name.removeprefix(FEATURES).isdecimal() for name in names):
        return None
    return {name: int(name.removeprefix(FEATURES)) for name in names}
