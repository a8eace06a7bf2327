# SPDX-License-Identifier: Apache-2.0
"""Dynamic convolution as a Keras layer."""

import keras

from keras_dynfilter.layers.dynamic_filter import PerSampleFilterLayer
from keras_dynfilter.ops import dynamic_conv2d
from keras_dynfilter.ops.checks import positive


@keras.saving.register_keras_serializable("keras_dynfilter")
class DynamicConv2D(PerSampleFilterLayer):
    """Convolution whose filters belong to the sample: `keras_dynfilter.ops.dynamic_conv2d`.

    The layer has no weights of its own. It is used in one of two ways:

    - `layer([inputs, filters])` applies given filters;
    - with a `generator`, `layer(inputs)` filters `inputs` with `generator(inputs)`, and `layer([inputs, guide])` with
      `generator(guide)`.

    Args:
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        padding: `"same"`: zeros on both sides alike (even windows: one more at the end), windows centred on input
            `i * strides`; or `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        output_maps: Positive integer, the number of output channels.
        normalization: None, or `"softmax"` over all taps and channels of an output map. If separable: over the
            vertical taps and channels of an output map, and over the taps of each horizontal filter.
        separable: Whether a filter of one channel is a vertical and a horizontal one, applied one after the other.
        dynamic_bias: None, or where a generated bias, one value per sample, is added: `"before"` to the image inside
            the zero padding, or `"after"` to the result.
        generator: None, or the Keras layer or model that generates the filters.
        filters_regularizer: Regularizer of the filters as they are generated.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the image and its filters (without a generator), or the image alone or with a guide for the generator.

        - Image: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Filters, given or generated: `(batch, kernel_h, kernel_w, channels, output_maps)`, or `(batch,
          kernel_h + kernel_w, channels, output_maps)`, vertical taps first, if separable; or the same flattened in this
          order, as a Dense layer yields them, with the dynamic bias as one more value at the end.
          `filter_channels(channels)` counts the values.

    Output shape:
        - `(batch, out_height, out_width, output_maps)` if `data_format="channels_last"`.
        - `(batch, output_maps, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument is not as described, or the filters have another shape.

    Example:

    >>> layer = DynamicConv2D(5, output_maps=2, generator=keras.layers.Dense(5 * 5 * 3 * 2))
    >>> image, angle = np.ones((4, 16, 16, 3)), np.ones((4, 1))
    >>> layer([image, angle]).shape
    TensorShape([4, 16, 16, 2])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1.
    """

    own_arguments = ("output_maps",)

    def __init__(
        self,
        kernel_size,
        strides=(1, 1),
        padding="same",
        data_format=None,
        dilation_rate=(1, 1),
        output_maps=1,
        normalization=None,
        separable=False,
        dynamic_bias=None,
        generator=None,
        filters_regularizer=None,
        **kwargs,
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
        self.output_maps = positive(output_maps, "output_maps")

    def bank_depth(self, channels):
        return channels, self.output_maps

    def output_channels(self, channels):
        return self.output_maps

    def apply_filters(self, inputs, filters):
        bank, *horizontal = self.banks(filters, inputs.shape[-1])
        if horizontal:
            # The same as two passes over a padded image, without a map for every pair of channel and output map.
            bank = bank * horizontal[0]
        return dynamic_conv2d(inputs, bank, self.strides, self.dilation_rate, self.padding)
