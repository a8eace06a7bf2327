# SPDX-License-Identifier: Apache-2.0
"""Dynamic local filtering as a Keras layer."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Regularizer, Shape, Size
from keras_dynfilter.layers.dynamic_filter import DynamicFilterLayer
from keras_dynfilter.ops import layout, local_filter2d
from keras_dynfilter.ops.checks import positive
from keras_dynfilter.ops.layout import shape_to_channels_first, to_channels_last


@keras.saving.register_keras_serializable("keras_dynfilter")
class DynamicLocalFilter2D(DynamicFilterLayer):
    """Filters every position of every sample with a filter of its own: `keras_dynfilter.ops.local_filter2d`.

    The layer has no weights of its own. It is used in one of two ways:

    - `layer([inputs, filters])` applies given filters;
    - with a `generator`, `layer(inputs)` filters `inputs` with `generator(inputs)`, and `layer([inputs, guide])` with
      `generator(guide)`.

    All channels of a head share the filter of a position. With `depth_multiplier` above 1, a position has several
    filters, and each of them filters all channels. The layer does not sum over channels; the op
    `keras_dynfilter.ops.local_conv2d` does.

    Args:
        kernel_size: Positive odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        padding: `"same"`: the same number of zeros on both sides, and windows centred on input `i * strides`; or
            `"valid"`: no padding.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance between neighbouring taps in pixels.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            filter of its own.
        depth_multiplier: Positive integer, the number of filters per position and head, and of outputs per channel.
        normalization: None, or `"softmax"` over the taps of each filter (of each of its two parts if separable).
        separable: Whether a filter consists of a vertical and a horizontal filter. The vertical filters of all
            positions are applied to the image, then the horizontal filters to the result. Needs `strides=1` and
            `padding="same"`.
        dynamic_bias: None, or `"before"` or `"after"` for a generated bias with one value per position. `"before"` adds
            it to the image before the zero padding (needs `strides=1` and `padding="same"`), `"after"` adds it to the
            result.
        generator: None, or the Keras layer or model that generates the filters.
        filters_regularizer: Regularizer of the given or generated filters, before the normalisation and including the
            dynamic bias, for example `keras_dynfilter.regularizers.Smoothness`. Its value is divided by the batch size.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Without a generator, a list of the image and its filters. With a generator, the image alone, or a list of the
        image and a guide.

        - Image: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Filters, given or generated: `(batch, out_height, out_width, count_filter_values())` if
          `data_format="channels_last"`, `(batch, count_filter_values(), out_height, out_width)` if
          `data_format="channels_first"`.

        The channel axis of the filters has the order `(depth_multiplier, heads, taps)`. A filter has
        `kernel_h * kernel_w` taps in row-major order, or, if separable, `kernel_h` vertical and then `kernel_w`
        horizontal taps. The dynamic bias is one more channel at the end.

    Output shape:
        - `(batch, out_height, out_width, depth_multiplier * channels)` if `data_format="channels_last"`.
        - `(batch, depth_multiplier * channels, out_height, out_width)` if `data_format="channels_first"`.

        The channel axis has the order `(depth_multiplier, channels)`; in Keras's `DepthwiseConv2D`, it is
        `(channels, depth_multiplier)`.

    Raises:
        ValueError: An argument, or the shape of the inputs or of the filters, is not as described.

    Example:

    >>> layer = DynamicLocalFilter2D(9, normalization="softmax")
    >>> image = np.ones((2, 64, 64, 1))
    >>> logits = keras.layers.Conv2D(layer.count_filter_values(), 3, padding="same")(image)
    >>> layer([image, logits]).shape
    TensorShape([2, 64, 64, 1])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.2.
    """

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "same",
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        heads: int = 1,
        depth_multiplier: int = 1,
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
            heads=heads,
            **kwargs,
        )
        self.heads = self.geometry.heads
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier")
        for name, needs_every_pixel in (
            ("separable=True", self.separable),
            ('dynamic_bias="before"', dynamic_bias == "before"),
        ):
            if needs_every_pixel and (self.strides != (1, 1) or self.padding != "same"):
                expected = (
                    f"Expected `strides` to be 1 and `padding` to be 'same' with {name}: every pixel needs a filter"
                )
                raise ValueError(f"{expected}. Received: strides={self.strides}, padding={self.padding!r}")

    def count_filter_values(self) -> int:
        """Returns the number of values that a generator must produce for each position.

        Returns:
            The number of taps of all filters of a position, plus one for the dynamic bias if there is one.
        """
        window = sum(self.kernel_size) if self.separable else self.geometry.taps
        return self.depth_multiplier * self.heads * window + (self.dynamic_bias is not None)

    def filter_shapes(self, inputs_shape: Shape) -> list[Shape]:
        batch, _, _, channels = inputs_shape
        if channels is not None and channels % self.heads:
            raise ValueError(f"Expected `heads` to divide the channels. Received: heads={self.heads}, {channels=}")
        shape = batch, *self.geometry.output_shape(inputs_shape), self.count_filter_values()
        return [shape_to_channels_first(shape) if self.data_format == "channels_first" else shape]

    def output_channels(self, channels: int | None) -> int | None:
        return None if channels is None else self.depth_multiplier * channels

    def split_filters(self, filters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        if self.data_format == "channels_first":
            filters = to_channels_last(filters)
        return (filters, None) if self.dynamic_bias is None else (filters[..., :-1], filters[..., -1:])

    def apply_filters(self, inputs: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        if self.depth_multiplier > 1:
            inputs = tf.concat([inputs] * self.depth_multiplier, axis=-1)
        if not self.separable:
            return self._pass(inputs, filters, self.kernel_size)
        kernel_h, kernel_w = self.kernel_size
        groups = self.depth_multiplier * self.heads
        positions = layout.sizes(filters)[:3]
        parts = tf.split(tf.reshape(filters, [*positions, groups, kernel_h + kernel_w]), self.kernel_size, axis=-1)
        vertical, horizontal = (tf.reshape(part, [*positions, groups * part.shape[-1]]) for part in parts)
        return self._pass(self._pass(inputs, vertical, (kernel_h, 1)), horizontal, (1, kernel_w))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "depth_multiplier": self.depth_multiplier}

    def _pass(self, inputs, filters, kernel_size):
        return local_filter2d(
            inputs,
            filters,
            kernel_size,
            self.strides,
            self.dilation_rate,
            self.padding,
            self.depth_multiplier * self.heads,
            self.normalization,
        )
