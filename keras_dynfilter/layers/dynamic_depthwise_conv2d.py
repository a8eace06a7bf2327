# SPDX-License-Identifier: Apache-2.0
"""Dynamic depth-wise convolution as a Keras layer."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Regularizer, Size
from keras_dynfilter.layers.dynamic_filter import PerSampleFilterLayer
from keras_dynfilter.ops import dynamic_depthwise_conv2d


@keras.saving.register_keras_serializable("keras_dynfilter")
class DynamicDepthwiseConv2D(PerSampleFilterLayer):
    """Convolves each channel of each sample with a filter of its own: `keras_dynfilter.ops.dynamic_depthwise_conv2d`.

    The layer has no weights of its own. It is used in one of two ways:

    - `layer([inputs, filters])` applies given filters;
    - with a `generator`, `layer(inputs)` filters `inputs` with `generator(inputs)`, and `layer([inputs, guide])` with
      `generator(guide)`.

    Args:
        kernel_size: Positive odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        padding: `"same"`: the same number of zeros on both sides, and windows centred on input `i * strides`; or
            `"valid"`: no padding.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance between neighbouring taps in pixels.
        normalization: None, or `"softmax"` over the taps of each filter (of each of its two parts if separable).
        separable: Whether a filter consists of a vertical and a horizontal filter, which are applied one after the
            other.
        dynamic_bias: None, or `"before"` or `"after"` for a generated bias with one value per sample. `"before"` adds
            it to the image before the zero padding, `"after"` adds it to the result.
        generator: None, or the Keras layer or model that generates the filters.
        filters_regularizer: Regularizer of the given or generated filters, before the normalisation and including the
            dynamic bias. Its value is divided by the batch size.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Without a generator, a list of the image and its filters. With a generator, the image alone, or a list of the
        image and a guide.

        - Image: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Filters, given or generated: `(batch, kernel_h, kernel_w, channels)`, or, if separable,
          `(batch, kernel_h + kernel_w, channels)` with the vertical taps first. Flat filters, as a Dense layer produces
          them, have the same order and the shape `(batch, count_filter_values(channels))`. With a dynamic bias, the
          filters must be flat, and the bias is the last value.

    Output shape:
        - `(batch, out_height, out_width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument, or the shape of the inputs or of the filters, is not as described.

    Example:

    >>> layer = DynamicDepthwiseConv2D(3)
    >>> layer([np.ones((2, 8, 8, 4)), np.ones((2, 3, 3, 4))]).shape
    TensorShape([2, 8, 8, 4])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), here with filters that
        do not mix channels.
    """

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "same",
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        normalization: str | None = None,
        separable: bool = False,
        dynamic_bias: str | None = None,
        generator: keras.layers.Layer | None = None,
        filters_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            normalization=normalization,
            separable=separable,
            dynamic_bias=dynamic_bias,
            generator=generator,
            filters_regularizer=filters_regularizer,
            **kwargs,
        )

    def bank_depth(self, channels: int) -> tuple[int, ...]:
        return (channels,)

    def output_channels(self, channels: int | None) -> int | None:
        return channels

    def apply_filters(self, inputs: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        banks = self.banks(filters, inputs.shape[-1])
        strides = [self.strides] if not self.separable else [(self.strides[0], 1), (1, self.strides[1])]
        for bank, bank_strides in zip(banks, strides):
            inputs = dynamic_depthwise_conv2d(inputs, bank, bank_strides, self.dilation_rate, self.padding)
        return inputs
