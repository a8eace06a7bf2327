# SPDX-License-Identifier: Apache-2.0
"""Upsampling fused with a convolution."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Shape
from keras_dynfilter.ops import layout
from keras_dynfilter.ops.checks import positive


@keras.saving.register_keras_serializable("keras_dynfilter")
class UpsamplingConv2D(keras.layers.Layer):
    """Fuses 2x nearest-neighbour upsampling and a convolution into one sub-pixel convolution.

    The result equals `Conv2D(filters, kernel_size, padding="same")(UpSampling2D(2)(inputs))` with the same weights, up
    to rounding. Each input pixel becomes four equal pixels in the upsampled map, so several taps of a window are on the
    same input pixel. The layer first adds the kernel values of these taps. One convolution of the small map, with a
    smaller window, then computes the four outputs of each input pixel as channels. For a window of 5x5, this takes 9
    multiply-adds instead of 25; for a window of 3x3, it takes 9, as before.

    The gain is largest for a last convolution to one channel, which is slow in TensorFlow on CPUs: see
    `python -m benchmarks.layers.upsampling_conv2d`.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Positive odd integer, the height and width of the window in the upsampled map.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, 2 * height, 2 * width, filters)`.

    Raises:
        ValueError: An argument or the shape of the inputs is not as described.

    Example:

    >>> layer = UpsamplingConv2D(3, 5)
    >>> layer(np.ones((2, 6, 7, 4), "float32")).shape
    TensorShape([2, 12, 14, 3])
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = positive(filters, "filters")
        self.kernel_size = positive(kernel_size, "kernel_size")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"Expected `kernel_size` to be odd. Received: {kernel_size=}")

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or input_shape[-1] is None:
            expected = (
                "Expected `inputs` to have shape (batch, height, width, channels), with a known number of channels"
            )
            raise ValueError(f"{expected}. Received: inputs.shape={tuple(input_shape)}")
        window = (self.kernel_size, self.kernel_size)
        self.kernel = self.add_weight(
            name="kernel", shape=(*window, input_shape[-1], self.filters), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        kernel = tf.cast(self.kernel, inputs.dtype)
        sums = tf.constant(_taps_on_pixels(self.kernel_size), inputs.dtype)
        small = tf.einsum("iru,jsv,uvcf->rscijf", sums, sums, kernel)
        window, channels = sums.shape[1], kernel.shape[2]
        small = tf.reshape(small, [window, window, channels, 4 * self.filters])
        phases = tf.nn.conv2d(inputs, small, 1, "SAME")
        # On CPUs, tf.nn.conv2d returns another shape for an empty batch.
        phases = tf.reshape(phases, [*layout.sizes(inputs)[:3], 4 * self.filters])
        outputs = tf.nn.depth_to_space(phases, 2)
        return tf.nn.bias_add(outputs, tf.cast(self.bias, inputs.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, *(size and 2 * size for size in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "kernel_size": self.kernel_size}


def _taps_on_pixels(taps):
    """Returns `[2, window, taps]`, for even and odd outputs: 1 where a tap is on a pixel of the small map, else 0."""
    pixels = (np.arange(2)[:, None] + np.arange(taps) - taps // 2) // 2
    on_pixel = pixels[:, None] == np.arange(pixels.min(), pixels.max() + 1)[:, None]
    return on_pixel.astype("float32")
