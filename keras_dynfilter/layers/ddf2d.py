# SPDX-License-Identifier: Apache-2.0
"""Decoupled dynamic filtering as a Keras layer, in place of a convolution."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Activation, Initializer, Regularizer, Shape, Size
from keras_dynfilter.layers.decoupled import DecoupledLayer
from keras_dynfilter.layers.filter_generator import FilterGenerator
from keras_dynfilter.ops import ddf2d, dynamic_depthwise_conv2d, local_filter2d
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.layout import to_channels_last

BRANCHES = ("both", "spatial", "channel")


@keras.saving.register_keras_serializable("keras_dynfilter")
class DDF2D(DecoupledLayer):
    """Generates decoupled dynamic filters from images and filters the images with them: `keras_dynfilter.ops.ddf2d`.

        spatial filters: 1x1 convolution of the inputs, normalisation
        channel filters: mean over the positions, Dense, ReLU, Dense, normalisation
        outputs = activation(ddf2d(inputs, channel filters, spatial filters) + bias)

    The layer is a drop-in replacement for a convolution with equal numbers of input and output channels. With strides,
    the channel filters are still generated from all pixels. The spatial filter of output `(i, j)` is generated from the
    pixel `(i * strides, j * strides)`, the centre of its window.

    Args:
        kernel_size: Positive odd integer or pair `(kernel_h, kernel_w)`. 1x1 windows need norms other than `"filter"`.
        strides: Positive integer or pair. The output has `ceil(size / strides)` positions along an axis.
        dilation_rate: Positive integer or pair, the distance between neighbouring taps in pixels.
        squeeze_ratio: Positive number, at most 100. The bottleneck of the channel branch has
            `int(squeeze_ratio * channels)` values, at least one.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            spatial filter of its own.
        combine: `"mul"` multiplies the spatial and the channel filter tap by tap; `"add"` adds them.
        branches: `"both"`, or for ablations `"spatial"` (no channel filters: all channels of a head share one filter)
            or `"channel"` (no spatial filters: all positions share one filter per channel). With one branch, `combine`
            and the arguments of the other branch have no effect.
        spatial_norm: Normalisation of the spatial filters: `"filter"` (`FilterNorm` with the gain `"relu"`), `"batch"`
            (batch normalisation), `"sigmoid"`, None, or a Keras layer such as `FilterNorm("spatial", 3, scale="tap")`.
            A layer that is not a `FilterNorm` is called with values of shape
            `(batch, out_height, out_width, heads * kernel_h * kernel_w)`. It keeps this shape. `DDF2D` copies the
            layer by `get_config` and `from_config`, with another name and its own dtype policy, so that one object can
            serve many layers.
        channel_norm: Normalisation of the channel filters, with the options of `spatial_norm`. A layer that is not a
            `FilterNorm` is called with values of shape `(batch, kernel_h * kernel_w * channels)`.
        activation: Activation of the outputs. None: no activation.
        use_bias: Whether to add a trained bias per channel to the outputs.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        generator_initializer: Initializer of the kernels of the filter generator. None: normal with variance
            `2 / fan_out`, as in the authors' networks.
        generator_bias_initializer: Initializer of the biases of the filter generator. None: uniform within
            `1 / sqrt(fan_in)` of 0, as in the authors' networks.
        bias_initializer: Initializer of the bias of the outputs.
        generator_regularizer: Regularizer of the kernels of the filter generator.
        bias_regularizer: Regularizer of the bias of the outputs.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        - `(batch, height, width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, height, width)` if `data_format="channels_first"`.

    Output shape:
        - `(batch, out_height, out_width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument or the shape of the inputs is not as described.

    Example:

    >>> layer = DDF2D(3)
    >>> layer(np.ones((2, 8, 8, 64))).shape
    TensorShape([2, 8, 8, 64])
    >>> layer.count_params()  # an ordinary 3x3 convolution has 36,864
    9429

    Differences from the authors' code: images of odd size work with strides and give outputs of the same size as a
    convolution does; the bottleneck has at least one value; channel filters are generated in the order
    `(kernel_h, kernel_w, channels)`. The paper has neither the bias nor the activation.

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.
    """

    def __init__(
        self,
        kernel_size: Size = 3,
        strides: Size = (1, 1),
        dilation_rate: Size = (1, 1),
        squeeze_ratio: float = 0.2,
        heads: int = 1,
        combine: str = "mul",
        branches: str = "both",
        spatial_norm: str | keras.layers.Layer | None = "filter",
        channel_norm: str | keras.layers.Layer | None = "filter",
        activation: Activation = None,
        use_bias: bool = False,
        data_format: str | None = None,
        generator_initializer: Initializer = None,
        generator_bias_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        generator_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            dilation_rate=dilation_rate,
            squeeze_ratio=squeeze_ratio,
            heads=heads,
            combine=combine,
            spatial_norm=spatial_norm,
            channel_norm=channel_norm,
            gain="relu",
            activation=activation,
            use_bias=use_bias,
            data_format=data_format,
            generator_initializer=generator_initializer,
            generator_bias_initializer=generator_bias_initializer,
            bias_initializer=bias_initializer,
            generator_regularizer=generator_regularizer,
            bias_regularizer=bias_regularizer,
            **kwargs,
        )
        self.strides = self.geometry.strides
        self.dilation_rate = self.geometry.dilation_rate
        self.branches = choice(branches, "branches", BRANCHES)
        self.generator = FilterGenerator(
            spatial_norm=None if branches == "channel" else self.spatial_norm,
            channel_norm=None if branches == "spatial" else self.channel_norm,
            **self.generator_arguments(),
        )

    def build(self, input_shape: Shape) -> None:
        shape = self.check_inputs(input_shape)
        self.add_bias(shape[-1])
        self.generator.build(shape)
        self.input_spec = self.spec(shape[-1])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        if self.data_format == "channels_first":
            inputs = to_channels_last(inputs)
        (spatial,), (channel,) = self.generator(inputs, training=training)
        window: dict[str, Any] = dict(strides=self.strides, dilation_rate=self.dilation_rate)
        if spatial is None:
            outputs = dynamic_depthwise_conv2d(inputs, channel, **window)
        elif channel is None:
            outputs = local_filter2d(inputs, spatial, self.kernel_size, heads=self.heads, **window)
        else:
            outputs = ddf2d(inputs, channel, spatial, heads=self.heads, combine=self.combine, **window)
        return self.finish_outputs(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *_, channels = shape = self.check_inputs(input_shape)
        return self.output_shape_in_layout((batch, *self.geometry.output_shape(shape), channels))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"strides": self.strides, "dilation_rate": self.dilation_rate, "branches": self.branches})
        return config
