# SPDX-License-Identifier: Apache-2.0
"""Dynamic convolution as a Keras layer."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Regularizer, Size
from keras_dynfilter.layers.dynamic_filter import PerSampleFilterLayer
from keras_dynfilter.ops import dynamic_conv2d
from keras_dynfilter.ops.checks import positive


@keras.saving.register_keras_serializable("keras_dynfilter")
class DynamicConv2D(PerSampleFilterLayer):
    """Convolves each sample with a filter bank of its own: `keras_dynfilter.ops.dynamic_conv2d`.

    The layer has no weights of its own. It is used in one of two ways:

    - `layer([inputs, filters])` applies given filters;
    - with a `generator`, `layer(inputs)` filters `inputs` with `generator(inputs)`, and `layer([inputs, guide])` with
      `generator(guide)`.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        padding: `"same"`: the same number of zeros on both sides (for even windows one more at the end), and windows
            centred on input `i * strides`; or `"valid"`: no padding.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance between neighbouring taps in pixels.
        normalization: None, or `"softmax"` over all taps and channels of an output channel. If separable: over the
            vertical taps and channels of an output channel, and over the taps of each horizontal filter.
        separable: Whether the filter from an input channel to an output channel consists of a vertical and a horizontal
            filter, which are applied one after the other.
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
        - Filters, given or generated: `(batch, kernel_h, kernel_w, channels, filters)`, or, if separable,
          `(batch, kernel_h + kernel_w, channels, filters)` with the vertical taps first. Flat filters, as a Dense layer
          produces them, have the same order and the shape `(batch, count_filter_values(channels))`. With a dynamic
          bias, the filters must be flat, and the bias is the last value.

    Output shape:
        - `(batch, out_height, out_width, filters)` if `data_format="channels_last"`.
        - `(batch, filters, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument, or the shape of the inputs or of the filters, is not as described.

    Example:

    >>> layer = DynamicConv2D(2, 5, generator=keras.layers.Dense(5 * 5 * 3 * 2))
    >>> image, angle = np.ones((4, 16, 16, 3)), np.ones((4, 1))
    >>> layer([image, angle]).shape
    TensorShape([4, 16, 16, 2])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1.
    """

    def __init__(
        self,
        filters: int,
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
            even=True,
            **kwargs,
        )
        self.filters = positive(filters, "filters")

    def bank_depth(self, channels: int) -> tuple[int, ...]:
        return channels, self.filters

    def output_channels(self, channels: int | None) -> int | None:
        return self.filters

    def apply_filters(self, inputs: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        bank, *horizontal = self.banks(filters, inputs.shape[-1])
        if horizontal:
            # The product equals two passes over a padded image and needs no map for every pair of channels.
            bank = bank * horizontal[0]
        return dynamic_conv2d(inputs, bank, self.strides, self.dilation_rate, self.padding)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}
