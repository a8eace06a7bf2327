# SPDX-License-Identifier: Apache-2.0
"""Dynamic local filtering as a Keras layer."""

import keras
import tensorflow as tf

from keras_dynfilter.layers.dynamic_filter import DynamicFilterLayer
from keras_dynfilter.ops import local_filter2d
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.checks import positive
from keras_dynfilter.ops.layout import to_channels_last


@keras.saving.register_keras_serializable("keras_dynfilter")
class DynamicLocalFilter2D(DynamicFilterLayer):
    """Filters every position of every sample with a filter of its own: `keras_dynfilter.ops.local_filter2d`.

    The layer has no weights of its own. It is used in one of two ways:

    - `layer([inputs, filters])` applies given filters;
    - with a `generator`, `layer(inputs)` filters `inputs` with `generator(inputs)`, and `layer([inputs, guide])` with
      `generator(guide)`.

    All channels share the filter of a position, or those of a head do. With several output maps there are as many
    filters, and each filters all channels; `keras_dynfilter.ops.local_conv2d` is the op that sums over channels.

    Args:
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        padding: `"same"`: zeros on both sides alike, windows centred on input `i * strides`; or `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            filter of its own.
        output_maps: Positive integer, the number of times that the image is filtered, with other filters each time.
        normalization: None, or `"softmax"` over the taps of each filter (of each of its two parts if separable).
        separable: Whether a filter is a vertical and a horizontal one. The image is filtered with all vertical ones,
            the result with all horizontal ones. Needs `strides=1` and `padding="same"`.
        dynamic_bias: None, or where a generated bias, one value per position, is added: `"before"` to the image inside
            the zero padding (needs `strides=1` and `padding="same"`), or `"after"` to the result.
        generator: None, or the Keras layer or model that generates the filters.
        filters_regularizer: Regularizer of the filters as they are generated, for example
            `keras_dynfilter.regularizers.Smoothness`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the image and its filters (without a generator), or the image alone or with a guide for the generator.

        - Image: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Filters, given or generated: `(batch, out_height, out_width, filter_channels)` if
          `data_format="channels_last"`, `(batch, filter_channels, out_height, out_width)` if
          `data_format="channels_first"`.

        The channels of the filters are those of `output_maps * heads` filters, map by map and in each map head by
        head. A filter has `kernel_h * kernel_w` taps, row by row, or `kernel_h` vertical taps and then `kernel_w`
        horizontal ones if separable. The dynamic bias is one more channel at the end. `filter_channels()` counts them.

    Output shape:
        - `(batch, out_height, out_width, output_maps * channels)` if `data_format="channels_last"`.
        - `(batch, output_maps * channels, out_height, out_width)` if `data_format="channels_first"`.

        The output maps follow one another, each with the channels of the image.

    Raises:
        ValueError: An argument is not as described, or the filters have another shape.

    Example:

    >>> layer = DynamicLocalFilter2D(9, normalization="softmax")
    >>> image = np.ones((2, 64, 64, 1))
    >>> logits = keras.layers.Conv2D(layer.filter_channels(), 3, padding="same")(image)
    >>> layer([image, logits]).shape
    TensorShape([2, 64, 64, 1])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.2.
    """

    own_arguments = ("heads", "output_maps")

    def __init__(
        self,
        kernel_size,
        strides=(1, 1),
        padding="same",
        data_format=None,
        dilation_rate=(1, 1),
        heads=1,
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
            heads=heads,
            **kwargs,
        )
        self.heads = self.geometry.heads
        self.output_maps = positive(output_maps, "output_maps")
        for name, positions in (
            ("separable=True", self.separable),
            ('dynamic_bias="before"', dynamic_bias == "before"),
        ):
            if positions and (self.strides != (1, 1) or self.padding != "same"):
                expected = (
                    f"Expected `strides` to be 1 and `padding` to be 'same' with {name}: every pixel needs a filter"
                )
                raise ValueError(f"{expected}. Received: strides={self.strides}, padding={self.padding!r}")

    def filter_channels(self, channels=1):
        """Number of values per position that a generator has to produce.

        Args:
            channels: Taken for the sake of the other layers, and without effect: the heads share the channels.

        Returns:
            An integer: the taps of all filters of a position, and its dynamic bias if there is one.
        """
        window = sum(self.kernel_size) if self.separable else self.geometry.taps
        return self.output_maps * self.heads * window + (self.dynamic_bias is not None)

    def filter_shapes(self, inputs_shape):
        batch, _, _, channels = inputs_shape
        if channels is not None and channels % self.heads:
            raise ValueError(f"Expected `heads` to divide the channels. Received: heads={self.heads}, {channels=}")
        size = self.geometry.output_shape(inputs_shape)
        if self.data_format == "channels_first":
            return [(batch, self.filter_channels(), *size)]
        return [(batch, *size, self.filter_channels())]

    def output_channels(self, channels):
        return None if channels is None else self.output_maps * channels

    def split_filters(self, filters):
        if self.data_format == "channels_first":
            filters = to_channels_last(filters)
        return (filters, None) if self.dynamic_bias is None else (filters[..., :-1], filters[..., -1:])

    def apply_filters(self, inputs, filters):
        if self.output_maps > 1:
            inputs = tf.concat([inputs] * self.output_maps, axis=-1)
        if not self.separable:
            return self._pass(inputs, filters, self.kernel_size)
        kernel_h, kernel_w = self.kernel_size
        groups = self.output_maps * self.heads
        positions = composite.sizes(filters)[:3]
        parts = tf.split(tf.reshape(filters, [*positions, groups, kernel_h + kernel_w]), self.kernel_size, axis=-1)
        vertical, horizontal = (tf.reshape(part, [*positions, groups * part.shape[-1]]) for part in parts)
        return self._pass(self._pass(inputs, vertical, (kernel_h, 1)), horizontal, (1, kernel_w))

    def _pass(self, inputs, filters, kernel_size):
        heads = self.output_maps * self.heads
        return local_filter2d(
            inputs,
            filters,
            kernel_size,
            self.strides,
            self.dilation_rate,
            self.padding,
            heads,
            self.normalization,
        )
