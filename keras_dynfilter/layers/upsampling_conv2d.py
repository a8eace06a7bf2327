# SPDX-License-Identifier: Apache-2.0
"""A convolution of an enlarged map that does not enlarge it."""

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.ops.checks import positive


@keras.saving.register_keras_serializable("keras_dynfilter")  # files of networks name it
class UpConv2D(keras.layers.Layer):
    """`Conv2D(filters, kernel_size, padding="same")(UpSampling2D(2)(inputs))`, with the same weights.

    Each pixel stands for four equal ones in the enlarged map, so several taps of a window see the same pixel. Their
    weights are added first. Then one convolution of the small map, with a smaller window, makes four outputs of each
    pixel as channels: 9 multiply-adds for 25 with a 5x5 window, but as many as otherwise with 3x3. Outputs are the same
    up to rounding.

    Above all this is for a last convolution to one channel, at which TensorFlow is slow on CPUs: `python -m
    benchmarks.layers.upsampling_conv2d`.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Positive odd integer, rows and columns of the window in the enlarged map.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, 2 * height, 2 * width, filters)`.
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(**kwargs)
        self.filters = positive(filters, "filters")
        self.kernel_size = positive(kernel_size, "kernel_size")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"Expected `kernel_size` to be odd. Received: {kernel_size=}")

    def build(self, input_shape):
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

    def call(self, inputs):
        kernel = tf.cast(self.kernel, inputs.dtype)
        sums = tf.constant(_seen(self.kernel_size), inputs.dtype)
        small = tf.einsum("iru,jsv,uvcf->rscijf", sums, sums, kernel)
        window, channels = sums.shape[1], kernel.shape[2]
        small = tf.reshape(small, [window, window, channels, 4 * self.filters])
        outputs = tf.nn.depth_to_space(tf.nn.conv2d(inputs, small, 1, "SAME"), 2)
        return tf.nn.bias_add(outputs, tf.cast(self.bias, inputs.dtype))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, *(size and 2 * size for size in (height, width)), self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "kernel_size": self.kernel_size}


def _seen(taps):
    """`[2, window, taps]`: 1 where a tap sees a pixel, for even and odd output positions, along one axis."""
    pixels = (np.arange(2)[:, None] + np.arange(taps) - taps // 2) // 2
    seen = pixels[:, None] == np.arange(pixels.min(), pixels.max() + 1)[:, None]
    return seen.astype("float32")
