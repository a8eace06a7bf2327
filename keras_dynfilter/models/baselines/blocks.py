# SPDX-License-Identifier: Apache-2.0
"""Blocks of ordinary convolutions that several networks share. All images are channels-last."""

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Initializer


def symmetric_conv2d(
    inputs: tf.Tensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    padding: int | None = None,
    dilation_rate: int = 1,
    use_bias: bool = True,
    kernel_initializer: Initializer = "glorot_uniform",
    name: str | None = None,
) -> tf.Tensor:
    """Applies a convolution that pads all four sides alike; TensorFlow's `"same"` may not do so with strides.

    Args:
        inputs: `[batch, height, width, channels]`.
        filters: Number of output channels.
        kernel_size: Height and width of the window.
        strides: Stride along both axes.
        padding: Number of zeros on each side. None: half the window, so that odd windows with stride 1 keep the size.
        dilation_rate: Distance of neighbouring filter taps, in pixels.
        use_bias: Whether to add a bias.
        kernel_initializer: Initializer of the kernel.
        name: Name of the convolution; its padding layer, if there is one, is named `{name}_pad`.

    Returns:
        `[batch, out_height, out_width, filters]`.
    """
    extent = dilation_rate * (kernel_size - 1)
    padding = dilation_rate * (kernel_size // 2) if padding is None else padding
    keeps_size = strides == 1 and 2 * padding == extent
    if padding and not keeps_size:
        inputs = zero_padding(inputs, padding, f"{name}_pad")
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        "same" if keeps_size else "valid",
        data_format="channels_last",
        dilation_rate=dilation_rate,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer,
        name=name,
    )(inputs)


def zero_padding(inputs: tf.Tensor, pixels: int, name: str) -> tf.Tensor:
    """Adds `pixels` rows or columns of zeros on each side."""
    return keras.layers.ZeroPadding2D(pixels, data_format="channels_last", name=name)(inputs)


def batch_norm(inputs: tf.Tensor, name: str, gamma_initializer: Initializer = "ones") -> tf.Tensor:
    """Applies batch normalisation over the channels."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma_initializer, name=name)(
        inputs
    )


def relu(inputs: tf.Tensor, name: str, negative_slope: float = 0.0) -> tf.Tensor:
    """Applies a ReLU, or a leaky ReLU if `negative_slope` is not 0."""
    # Keras 2 and Keras 3 give the slope different names, but both accept it as the first argument.
    layer = keras.layers.LeakyReLU(negative_slope, name=name) if negative_slope else keras.layers.ReLU(name=name)
    return layer(inputs)


def conv_norm_relu(
    inputs: tf.Tensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    padding: int | None = None,
    negative_slope: float = 0.0,
    name: str | None = None,
) -> tf.Tensor:
    """Applies `symmetric_conv2d`, batch normalisation and a (leaky) ReLU."""
    outputs = symmetric_conv2d(inputs, filters, kernel_size, strides, padding, name=name)
    return relu(batch_norm(outputs, f"{name}_bn"), f"{name}_relu", negative_slope)


def pixel_convolution(name: str) -> keras.layers.Layer:
    """Returns the output layer of the DFN baselines: a linear 1x1 convolution to one channel.

    It takes the place of the local filtering in networks that predict pixels instead of filters.
    """
    return keras.layers.Conv2D(1, 1, data_format="channels_last", kernel_initializer="lecun_uniform", name=name)
