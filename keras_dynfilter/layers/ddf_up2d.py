# SPDX-License-Identifier: Apache-2.0
"""DDF-Up: upsampling with decoupled dynamic filters."""

import keras
import tensorflow as tf

from keras_dynfilter.layers.decoupled import DecoupledLayer
from keras_dynfilter.layers.dynamic_filter import _shapes
from keras_dynfilter.ops import ddf2d, dynamic_depthwise_conv2d, pixel_projection
from keras_dynfilter.ops.backends import composite, dispatch
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.ops.layout import to_channels_first, to_channels_last

GUIDE_SIZES = ("auto", "input", "output")


@keras.saving.register_keras_serializable("keras_dynfilter")
class DDFUp2D(DecoupledLayer):
    """Upsamples with decoupled dynamic filters, generated from the inputs, or jointly from a guide.

    Each of the `scale_factor**2` phases of the output has a branch of its own, with its own spatial and channel
    filters; all branches filter the same inputs, at their size. Branch `q` fills the output positions
    `(i * scale_factor + q // scale_factor, j * scale_factor + q % scale_factor)`.

        spatial filters: 3x3 depth-wise convolution and 1x1 convolution of the inputs, FilterNorm
        spatial filters with a guide: 1x1 convolution of the guide, FilterNorm
        channel filters: mean of the inputs over the positions, Dense, ReLU, Dense, FilterNorm

    The layer is used in one of two ways, `layer(inputs)` or `layer([inputs, guide])`; the first call decides which.

    Args:
        scale_factor: Integer of at least 2.
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`, the window of the generated filters.
        squeeze_ratio: Positive number: `int(squeeze_ratio * channels)`, at least 1, is the width of the bottleneck in
            the channel branches.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            spatial filter of its own.
        combine: `"mul"`: the weight of a tap is the product of the two filters; or `"add"`: their sum.
        gain: Of `FilterNorm`: `"relu"`, `"linear"` or a positive number.
        guide_size: `"input"`: the guide is as large as the inputs, and all branches see the same pixel of it;
            `"output"`: it is `scale_factor` times as large, and the filter of every output position comes from the
            pixel of the guide at that position; or `"auto"`: what the sizes say when the layer is built.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        kernel_initializer: Initializer of the kernels. None: normal with variance `2 / fan_out`.
        bias_initializer: Initializer of the biases. None: uniform within `1 / sqrt(fan_in)` of 0.
        kernel_regularizer: Regularizer of the kernels.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        The inputs, or a list of the inputs and a guide.

        - Inputs: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Guide: in the same layout and of the sizes that `guide_size` says, with any number of channels.

    Output shape:
        - `(batch, scale_factor * height, scale_factor * width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, scale_factor * height, scale_factor * width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument is not as described, or the inputs have other shapes.

    Example:

    >>> layer = DDFUp2D(2)
    >>> layer(np.ones((1, 8, 8, 32))).shape
    TensorShape([1, 16, 16, 32])
    >>> layer.count_params()
    12476

    The class that the authors released does not run, so these are choices. As in that class: the depth-wise
    convolution belongs to the form without a guide and to each branch, nothing stands between it and the 1x1
    convolution, and the channel filters come from the inputs in both forms. Ours: its padding is 1 on all sides
    whatever `kernel_size`; a guide may have another number of channels than the inputs; a guide of the output's size is
    split into its phases, one for each branch, at no more parameters (the paper encodes a large guide, and does not say
    how it meets the small inputs); and the initialisers are those of the DDF networks.

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.4.
    """

    own_arguments = ("scale_factor", "guide_size")

    def __init__(
        self,
        scale_factor=2,
        kernel_size=3,
        squeeze_ratio=0.2,
        heads=1,
        combine="mul",
        gain="linear",
        guide_size="auto",
        data_format=None,
        kernel_initializer=None,
        bias_initializer=None,
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(
            kernel_size=kernel_size,
            squeeze_ratio=squeeze_ratio,
            heads=heads,
            combine=combine,
            gain=gain,
            data_format=data_format,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            **kwargs,
        )
        self.scale_factor = positive(scale_factor, "scale_factor")
        if self.scale_factor < 2:
            raise ValueError(f"Expected `scale_factor` to be at least 2. Received: {scale_factor=}")
        self.guide_size = choice(guide_size, "guide_size", GUIDE_SIZES)
        self.guide_scale = None  # how many times as large as the inputs a guide is; None without a guide
        self.branches = self.scale_factor**2
        self.spatial_norm = self.filter_norm("spatial")
        self.channel_branches = [
            self.channel_filters(self.filter_norm("channel"), name=f"channel_filters_{branch}")
            for branch in range(self.branches)
        ]

    def build(self, input_shape):
        shape, guide = self._check(input_shape)
        channels = shape[-1]
        filters = self.branches * self.heads * self.geometry.taps
        if guide is None:
            self.depthwise_kernel, self.depthwise_bias = self.add_convolution(
                "depthwise",
                (3, 3, channels, self.branches),
                (channels, self.branches),
                fan_in=9,
                branches=self.branches,
            )
            generating = channels
        else:
            self.guide_scale = self._scale_of_guide(shape, guide)
            generating = guide[-1]
        self.spatial_kernel, self.spatial_bias = self.add_convolution(
            "spatial", (1, 1, generating, filters), (filters,), fan_in=generating, branches=self.branches
        )
        self.spatial_norm.build((None, None, None, filters))
        for branch in self.channel_branches:
            branch.build((None, channels))
        self.input_spec = self.spec(channels) if guide is None else [self.spec(channels), self.spec(generating)]
        super().build(input_shape)

    def call(self, inputs):
        inputs, guide = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        if self.data_format == "channels_first":
            inputs = to_channels_last(inputs)
            guide = None if guide is None else to_channels_last(guide)
        values = self._from_inputs(inputs) if guide is None else self._from_guide(inputs, guide)
        spatial = tf.split(self.spatial_norm.scaled(values), self.branches, axis=-1)
        means = pixel_projection.pool(inputs)
        phases = [
            ddf2d(inputs, channel(means), filters, heads=self.heads, combine=self.combine)
            for channel, filters in zip(self.channel_branches, spatial)
        ]
        # The channels of a phase stay together: TensorFlow's order, not that of PyTorch's pixel shuffle.
        outputs = tf.nn.depth_to_space(tf.concat(phases, axis=-1), self.scale_factor)
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def compute_output_shape(self, input_shape):
        (batch, height, width, channels), _ = self._check(input_shape)
        size = [None if n is None else n * self.scale_factor for n in (height, width)]
        return (batch, channels, *size) if self.data_format == "channels_first" else (batch, *size, channels)

    def _from_inputs(self, inputs):
        """The values that become spatial filters, branch by branch, from the inputs."""
        channels = inputs.shape[-1]
        pointwise = tf.reshape(self.spatial_kernel, [channels, self.branches, -1])
        bias = tf.reshape(tf.reduce_sum(self.depthwise_bias[..., None] * pointwise, axis=0), [-1]) + self.spatial_bias
        if dispatch.use_native() and not tf.config.get_visible_devices("GPU"):
            maps = [self._depthwise(inputs, branch) for branch in range(self.branches)]
            return self._projected(maps, bias)
        # One convolution, whose kernel is the product of the two, takes less of other ops.
        kernel = tf.reshape(self.depthwise_kernel[..., None] * pointwise, [3, 3, channels, -1])
        kernel, bias = self._centred(kernel, bias)
        outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), 1, "SAME")
        # On CPUs, an empty batch has another shape here, and the gradient of tf.nn.bias_add fails for it.
        outputs = tf.reshape(outputs, [*composite.sizes(inputs)[:3], bias.shape[0]])
        return tf.cast(outputs, bias.dtype) + bias

    def _depthwise(self, inputs, branch):
        """The depth-wise convolution of a branch: by the op for filters per sample, which here are the same."""
        kernel = tf.cast(self.depthwise_kernel[None, ..., branch], inputs.dtype)
        filters = tf.broadcast_to(kernel, [composite.sizes(inputs)[0], *kernel.shape[1:]])
        return dynamic_depthwise_conv2d(inputs, filters)

    def _from_guide(self, inputs, guide):
        """The values that become spatial filters, branch by branch, from the guide."""
        scale = self._scale_of_guide(inputs.shape, guide.shape)
        phases = [guide[:, y::scale, x::scale] for y in range(scale) for x in range(scale)]
        return self._projected(phases, self.spatial_bias)

    def _projected(self, maps, bias):
        """The 1x1 convolutions of `maps`, one for each branch or one for all, side by side."""
        weights = (tf.cast(each, maps[0].dtype) for each in self._centred(self.spatial_kernel[0, 0], bias))
        parts = (tf.split(each, len(maps), axis=-1) for each in weights)
        return tf.concat([pixel_projection.project(*each) for each in zip(maps, *parts)], axis=-1)

    def _centred(self, *weights):
        """Minus the mean of each filter's taps, which are these few values, and not those of all positions."""
        return [self.spatial_norm.centred(each) for each in weights]

    def _check(self, input_shape):
        """The shapes of the inputs and of the guide (or None) in channels-last order."""
        shapes = _shapes(input_shape)
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
        """How many times as large as the inputs the guide is, from their channels-last shapes."""
        allowed = {"auto": (1, self.scale_factor), "input": (1,), "output": (self.scale_factor,)}[self.guide_size]
        allowed = allowed if self.guide_scale is None else (self.guide_scale,)
        sizes = list(zip(shape[1:3], guide[1:3]))
        fitting = [scale for scale in allowed if all(None in (n, g) or g == scale * n for n, g in sizes)]
        received = f"Received: inputs.shape={tuple(shape)}, guide.shape={tuple(guide)}, in channels-last order"
        if not fitting:
            times = " or ".join(str(scale) for scale in allowed)
            raise ValueError(f"Expected `guide` to be {times} times as large as `inputs`. {received}")
        if len(fitting) > 1:
            expected = "Expected `guide_size` to be 'input' or 'output' where sizes are unknown"
            raise ValueError(f"{expected}. {received}")
        return fitting[0]
