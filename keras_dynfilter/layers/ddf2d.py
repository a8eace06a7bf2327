# SPDX-License-Identifier: Apache-2.0
"""The DDF module: decoupled dynamic filtering as a drop-in for a convolution."""

import keras
import tensorflow as tf

from keras_dynfilter.layers.decoupled import NORMALIZATIONS, DecoupledLayer, apply_norm
from keras_dynfilter.layers.filter_norm import FilterNorm
from keras_dynfilter.ops import ddf2d, dynamic_depthwise_conv2d, local_filter2d, pixel_projection
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.layout import to_channels_first, to_channels_last

BRANCHES = ("both", "spatial", "channel")


@keras.saving.register_keras_serializable("keras_dynfilter")
class DDF2D(DecoupledLayer):
    """Filters its inputs with decoupled dynamic filters that it generates from them: `keras_dynfilter.ops.ddf2d`.

        spatial filters: 1x1 convolution of the inputs, FilterNorm
        channel filters: mean over the positions, Dense, ReLU, Dense, FilterNorm
        outputs = ddf2d(inputs, channel filters, spatial filters)

    A drop-in for a convolution with as many output maps as input maps; the layer has no bias of its own. Strides are
    those of the output: the channel filters are generated from all positions, and the spatial filter of output
    `(i, j)` from the pixel `(i * strides, j * strides)`, on which its window is centred.

    Args:
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair. The output has `ceil(size / strides)` positions along an axis.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        squeeze_ratio: Positive number: `int(squeeze_ratio * channels)`, at least 1, is the width of the bottleneck in
            the channel branch.
        heads: Positive integer that divides the channels: the number of groups of consecutive channels, each with a
            spatial filter of its own.
        combine: `"mul"`: the weight of a tap is the product of the two filters; or `"add"`: their sum.
        branches: `"both"`; `"spatial"`: no channel filters, all channels of a head share one filter; or `"channel"`:
            no spatial filters, all positions share one. For ablations, as is `normalization`.
        normalization: `"filter"`: `FilterNorm`; `"batch"`: batch normalisation of the generated values;
            `"sigmoid"` of them; or None: as they are.
        gain: Of `FilterNorm`: `"relu"`, `"linear"` or a positive number.
        spatial_scale: `scale` of the `FilterNorm` of the spatial filters: `"constant"`, `"filter"` or `"tap"`.
        spatial_center: `center` of the same: None, `"filter"` or `"tap"`.
        channel_scale: `scale` of the `FilterNorm` of the channel filters.
        channel_center: `center` of the same.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        kernel_initializer: Initializer of the kernels. None: normal with variance `2 / fan_out`, as in the DDF
            networks.
        bias_initializer: Initializer of the biases. None: uniform within `1 / sqrt(fan_in)` of 0, as in the DDF
            networks.
        kernel_regularizer: Regularizer of the kernels.
        **kwargs: Arguments of `keras.layers.Layer`.

    Arguments of what a layer does not have are without effect: `gain`, `spatial_scale`, `spatial_center`,
    `channel_scale` and `channel_center` unless `normalization="filter"`; of these, those of the other kind with one
    branch; `squeeze_ratio` with `branches="spatial"`; `heads`, which must still divide the channels, with
    `branches="channel"`; `combine` with one branch.

    Input shape:
        - `(batch, height, width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, height, width)` if `data_format="channels_first"`.

    Output shape:
        - `(batch, out_height, out_width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument is not as described, or the inputs have another shape.

    Example:

    >>> layer = DDF2D(3)
    >>> layer(np.ones((2, 8, 8, 64))).shape
    TensorShape([2, 8, 8, 64])
    >>> layer.count_params()  # a convolution with a 3x3 window has 36,864
    9429

    Differences from the authors' code: odd sizes with strides work, and give as many positions as a convolution;
    a bottleneck has at least one value; channel filters are generated in the order `(kernel_h, kernel_w, channels)`.

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.
    """

    own_arguments = (
        "strides",
        "dilation_rate",
        "branches",
        "normalization",
        "spatial_scale",
        "spatial_center",
        "channel_scale",
        "channel_center",
    )

    def __init__(
        self,
        kernel_size=3,
        strides=1,
        dilation_rate=1,
        squeeze_ratio=0.2,
        heads=1,
        combine="mul",
        branches="both",
        normalization="filter",
        gain="relu",
        spatial_scale="constant",
        spatial_center=None,
        channel_scale="tap",
        channel_center=None,
        data_format=None,
        kernel_initializer=None,
        bias_initializer=None,
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            dilation_rate=dilation_rate,
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
        self.strides = self.geometry.strides
        self.dilation_rate = self.geometry.dilation_rate
        self.branches = choice(branches, "branches", BRANCHES)
        self.normalization = choice(normalization, "normalization", NORMALIZATIONS)
        self.spatial_scale, self.spatial_center = spatial_scale, spatial_center
        self.channel_scale, self.channel_center = channel_scale, channel_center
        self.spatial_norm = self.channel_branch = None
        if branches != "channel":
            self.spatial_norm = self._norm("spatial", scale=spatial_scale, center=spatial_center)
        if branches != "spatial":
            norm = self._norm("channel", scale=channel_scale, center=channel_center)
            self.channel_branch = self.channel_filters(norm)

    def build(self, input_shape):
        channels = self.check_inputs(input_shape)[-1]
        if self.spatial_norm is not None:
            values = self.heads * self.geometry.taps
            self.spatial_kernel, self.spatial_bias = self.add_convolution(
                "spatial", (channels, values), (values,), fan_in=channels
            )
            self.spatial_norm.build((None, None, None, values))
        if self.channel_branch is not None:
            self.channel_branch.build((None, channels))
        self.input_spec = self.spec(channels)
        super().build(input_shape)

    def call(self, inputs, training=None):
        if self.data_format == "channels_first":
            inputs = to_channels_last(inputs)
        spatial, channel = self._filters(inputs, training)
        window = dict(strides=self.strides, dilation_rate=self.dilation_rate)
        if spatial is None:
            outputs = dynamic_depthwise_conv2d(inputs, channel, **window)
        elif channel is None:
            outputs = local_filter2d(inputs, spatial, self.kernel_size, heads=self.heads, **window)
        else:
            outputs = ddf2d(inputs, channel, spatial, heads=self.heads, combine=self.combine, **window)
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = self.check_inputs(input_shape)
        size = self.geometry.output_shape((batch, height, width, channels))
        return (batch, channels, *size) if self.data_format == "channels_first" else (batch, *size, channels)

    def _filters(self, inputs, training):
        """The spatial and the channel filters, or None for the kind that the layer does not have."""
        spatial = channel = None
        if self.spatial_norm is None:
            means = pixel_projection.pool(inputs)
        else:
            kernel, bias = self.spatial_kernel, self.spatial_bias
            centred = isinstance(self.spatial_norm, FilterNorm)
            if centred:  # a few weights, in place of the filters of all positions
                kernel, bias = self.spatial_norm.centred(kernel), self.spatial_norm.centred(bias)
            values, means = self._values_and_means(inputs, tf.cast(kernel, inputs.dtype), tf.cast(bias, inputs.dtype))
            norm = self.spatial_norm
            spatial = norm.scaled(values) if centred else apply_norm(norm, values, training)
        if self.channel_branch is not None:
            channel = self.channel_branch(means, training=training)
        return spatial, channel

    def _values_and_means(self, inputs, kernel, bias):
        """The values that become spatial filters and, where there are channel filters, the means of the channels."""
        if self.channel_branch is not None and self.strides == (1, 1):
            return pixel_projection.project_and_pool(inputs, kernel, bias)
        means = None if self.channel_branch is None else pixel_projection.pool(inputs)
        return pixel_projection.project(inputs[:, :: self.strides[0], :: self.strides[1]], kernel, bias), means

    def _norm(self, kind, **options):
        if self.normalization == "filter":
            return self.filter_norm(kind, **options)
        if self.normalization == "batch":
            return keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"{kind}_norm", dtype=self.dtype_policy
            )
        return keras.layers.Activation(self.normalization or "linear", name=f"{kind}_norm", dtype=self.dtype_policy)
