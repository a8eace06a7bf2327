# SPDX-License-Identifier: Apache-2.0
"""Upsampling with decoupled dynamic filters (DDF-Up) as a Keras layer."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import (
    Activation,
    Initializer,
    Regularizer,
    Shape,
    Shapes,
    Size,
    Tensors,
    list_of_shapes,
)
from keras_dynfilter.layers.decoupled import DecoupledLayer
from keras_dynfilter.layers.filter_generator import FilterGenerator
from keras_dynfilter.ops import ddf2d
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.ops.layout import to_channels_last

GUIDE_SIZES = ("auto", "input", "output")


@keras.saving.register_keras_serializable("keras_dynfilter")
class DDFUp2D(DecoupledLayer):
    """Upsamples images with decoupled dynamic filters, generated from the images alone or from the images and a guide.

    The output consists of `scale_factor**2` phases. Each phase has the size of the inputs: it is the result of
    filtering the inputs with spatial and channel filters of its own. Phase `q` fills the output positions
    `(i * scale_factor + q // scale_factor, j * scale_factor + q % scale_factor)`.

        spatial filters without a guide: 3x3 depth-wise convolution and 1x1 convolution of the inputs, normalisation
        spatial filters with a guide: 1x1 convolution of the guide, normalisation
        channel filters: mean of the inputs over the positions, Dense, ReLU, Dense, normalisation

    The layer is called as `layer(inputs)` or as `layer([inputs, guide])`. The first call decides between the two forms.

    Args:
        scale_factor: Integer of at least 2.
        kernel_size: Positive odd integer or pair `(kernel_h, kernel_w)`. 1x1 windows need norms other than `"filter"`.
        squeeze_ratio: Positive number, at most 100. The bottleneck of each channel branch has
            `int(squeeze_ratio * channels)` values, at least one.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            spatial filter of its own.
        combine: `"mul"` multiplies the spatial and the channel filter tap by tap; `"add"` adds them.
        spatial_norm: Normalisation of the spatial filters: `"filter"` (`FilterNorm` with the gain `"linear"`),
            `"batch"` (batch normalisation), `"sigmoid"`, None, or a Keras layer such as
            `FilterNorm("spatial", 3, gain="relu")`. A layer that is not a `FilterNorm` is called with the values of all
            phases, concatenated to `(batch, height, width, phases * heads * kernel_h * kernel_w)`. It keeps
            this shape. `DDFUp2D` copies the layer by `get_config` and `from_config`, with another name and its own
            dtype policy, so that one object can serve many layers.
        channel_norm: Normalisation of the channel filters, with the options of `spatial_norm`. Each phase has a copy.
            A layer that is not a `FilterNorm` is called with values of shape `(batch, kernel_h * kernel_w * channels)`.
        guide_size: `"input"`: the guide has the size of the inputs, and all phases use the same pixel of the guide;
            `"output"`: the guide is `scale_factor` times as large, and the filter of every output position is generated
            from the pixel of the guide at that position; or `"auto"`: one of these, chosen by the sizes when the layer
            is built.
        activation: Activation of the outputs. None: no activation.
        use_bias: Whether to add a trained bias per channel to the outputs.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        generator_initializer: Initializer of the kernels of the filter generator. None: normal with variance
            `2 / fan_out`.
        generator_bias_initializer: Initializer of the biases of the filter generator. None: uniform within
            `1 / sqrt(fan_in)` of 0.
        bias_initializer: Initializer of the bias of the outputs.
        generator_regularizer: Regularizer of the kernels of the filter generator.
        bias_regularizer: Regularizer of the bias of the outputs.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        The inputs, or a list of the inputs and a guide.

        - Inputs: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Guide: in the same layout, with any number of channels. Its height and width follow from `guide_size`.

    Output shape:
        - `(batch, scale_factor * height, scale_factor * width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, scale_factor * height, scale_factor * width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument, or the shape of the inputs or of the guide, is not as described.

    Example:

    >>> layer = DDFUp2D(2)
    >>> layer(np.ones((1, 8, 8, 32))).shape
    TensorShape([1, 16, 16, 32])
    >>> layer.count_params()
    12476

    The class that the authors released does not run. This layer takes from it:

    - Without a guide, each phase has a depth-wise convolution of its own, directly followed by the 1x1 convolution.
    - The channel filters are generated from the inputs, with and without a guide.

    These parts are choices of this package:

    - The depth-wise convolution has a padding of 1 on all sides, whatever `kernel_size` is.
    - A guide may have another number of channels than the inputs.
    - A guide of the output's size is split into its phases, which needs no additional parameters. The paper encodes a
      large guide and does not describe how it is combined with the small inputs.
    - The default initializers are the initializers of the authors' DDF networks.
    - The bias and the activation are not part of the paper.

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.4.
    """

    def __init__(
        self,
        scale_factor: int = 2,
        kernel_size: Size = 3,
        squeeze_ratio: float = 0.2,
        heads: int = 1,
        combine: str = "mul",
        spatial_norm: str | keras.layers.Layer | None = "filter",
        channel_norm: str | keras.layers.Layer | None = "filter",
        guide_size: str = "auto",
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
            squeeze_ratio=squeeze_ratio,
            heads=heads,
            combine=combine,
            spatial_norm=spatial_norm,
            channel_norm=channel_norm,
            gain="linear",
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
        self.scale_factor = positive(scale_factor, "scale_factor")
        if self.scale_factor < 2:
            raise ValueError(f"Expected `scale_factor` to be at least 2. Received: {scale_factor=}")
        self.guide_size = choice(guide_size, "guide_size", GUIDE_SIZES)
        self.guide_scale = None  # size of the guide relative to the inputs, 1 or `scale_factor`; None without a guide
        self.generator = FilterGenerator(
            spatial_norm=self.spatial_norm,
            channel_norm=self.channel_norm,
            phases=self.scale_factor**2,
            **self.generator_arguments(),
        )

    def build(self, input_shape: Shapes) -> None:
        shape, guide = self._check(input_shape)
        channels = shape[-1]
        self.add_bias(channels)
        if guide is None:
            self.generator.build(shape)
            self.input_spec = self.spec(channels)
        else:
            self.guide_scale = self._scale_of_guide(shape, guide)
            self.generator.build([shape, (*shape[:-1], guide[-1])])
            self.input_spec = [self.spec(channels), self.spec(guide[-1])]
        super().build(input_shape)

    def call(self, inputs: Tensors, training: bool | None = None) -> tf.Tensor:
        inputs, guide = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        guide = None if guide is None else tf.cast(guide, self.compute_dtype)
        if self.data_format == "channels_first":
            inputs = to_channels_last(inputs)
            guide = None if guide is None else to_channels_last(guide)
        sources = inputs if guide is None else [inputs, *self._phases_of_guide(inputs, guide)]
        phases = [
            ddf2d(inputs, channel, spatial, heads=self.heads, combine=self.combine)
            for spatial, channel in zip(*self.generator(sources, training=training))
        ]
        # The channels of a phase are consecutive, unlike in PyTorch's pixel shuffle.
        return self.finish_outputs(tf.nn.depth_to_space(tf.concat(phases, axis=-1), self.scale_factor))

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        (batch, height, width, channels), _ = self._check(input_shape)
        size = [None if n is None else n * self.scale_factor for n in (height, width)]
        return self.output_shape_in_layout((batch, *size, channels))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"scale_factor": self.scale_factor, "guide_size": self.guide_size})
        return config

    def _phases_of_guide(self, inputs, guide):
        """Returns the pixels of the guide for each phase, or the guide alone if all phases share its pixels."""
        scale = self._scale_of_guide(inputs.shape, guide.shape)
        return [guide[:, row::scale, column::scale] for row in range(scale) for column in range(scale)]

    def _check(self, input_shape):
        """Returns the shapes of the inputs and of the guide (or None) in channels-last order."""
        shapes = list_of_shapes(input_shape)
        if len(shapes) > 2:
            expected = "Expected `inputs` to be a tensor, or a list [inputs, guide]"
            raise ValueError(f"{expected}. Received: {len(shapes)} tensors")
        shape = self.check_inputs(shapes[0])
        if len(shapes) == 1:
            return shape, None
        guide = self.check_inputs(shapes[1], "guide")
        self._scale_of_guide(shape, guide)
        return shape, guide

    def _scale_of_guide(self, shape, guide):
        """Computes the size of the guide relative to the inputs from their channels-last shapes."""
        allowed = {"auto": (1, self.scale_factor), "input": (1,), "output": (self.scale_factor,)}[self.guide_size]
        allowed = allowed if self.guide_scale is None else (self.guide_scale,)
        sizes = list(zip(shape[1:3], guide[1:3]))
        fitting = [scale for scale in allowed if all(None in pair or pair[1] == scale * pair[0] for pair in sizes)]
        received = f"Received: inputs.shape={tuple(shape)}, guide.shape={tuple(guide)}, in channels-last order"
        if not fitting:
            times = " or ".join(str(scale) for scale in allowed)
            raise ValueError(f"Expected `guide` to be {times} times as large as `inputs`. {received}")
        if len(fitting) > 1:
            expected = "Expected `guide_size` to be 'input' or 'output' where sizes are unknown"
            raise ValueError(f"{expected}. {received}")
        return fitting[0]
