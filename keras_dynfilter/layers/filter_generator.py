# SPDX-License-Identifier: Apache-2.0
"""The generator of decoupled filters, with one branch for the spatial and one for the channel filters."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import (
    Initializer,
    Regularizer,
    Shapes,
    Tensors,
    known_output_shape,
    list_of_shapes,
)
from keras_dynfilter.layers.filter_norm import FilterNorm
from keras_dynfilter.layers.generator_dense import GeneratorDense
from keras_dynfilter.layers.initializers import fan_out_normal, side_by_side, uniform_by_fan_in
from keras_dynfilter.layers.norm_template import NormTemplate
from keras_dynfilter.ops import backends, dynamic_depthwise_conv2d, layout, pixel_projection
from keras_dynfilter.ops.geometry import Geometry

Filters = list[tf.Tensor | None]  # of each phase; None: not generated


class FilterGenerator(keras.layers.Layer):
    """Generates spatial and channel filters for `keras_dynfilter.ops.ddf2d`, in the channels-last layout.

        spatial filters: 1x1 convolution of the inputs at the strided positions, normalisation
        channel filters: mean of the inputs over the positions, Dense, ReLU, Dense, normalisation

    For upsampling, each of the `phases` of the output has filters of its own. The spatial filters of a phase come from
    a 3x3 depth-wise convolution and a 1x1 convolution of the inputs, or from a 1x1 convolution of a guide.

    If the 1x1 convolution and the mean both need all positions, one fused op computes them and reads the inputs once.
    If the normalisation is a `FilterNorm`, the weights of the 1x1 convolution are centred instead of the filters at
    every position: the result is the same for far fewer values.

    Args:
        geometry: A `Geometry`: window, strides and heads of the filters.
        squeeze_ratio: Positive number, the ratio of the bottleneck width in the channel branch to the channels.
        spatial_norm: A `NormTemplate`, or None for no spatial filters.
        channel_norm: A `NormTemplate`, or None for no channel filters.
        kernel_initializer: Initializer of the kernels. None: normal with variance `2 / fan_out`.
        bias_initializer: Initializer of the biases. None: uniform within `1 / sqrt(fan_in)` of 0.
        kernel_regularizer: Regularizer of the kernels.
        phases: None, or the number of phases of an upsampled output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        The inputs, `(batch, height, width, channels)`. With guides, a list of the inputs and of one guide for all
        phases or one guide per phase, `(batch, height, width, guide_channels)`.

    Output shape:
        Two lists with one entry per phase: the spatial filters
        `(batch, out_height, out_width, heads * kernel_h * kernel_w)`, and the channel filters
        `(batch, kernel_h, kernel_w, channels)`. If a kind of filters is not generated, its list is `[None]`.
    """

    def __init__(
        self,
        geometry: Geometry,
        squeeze_ratio: float,
        spatial_norm: NormTemplate | None,
        channel_norm: NormTemplate | None,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        kernel_regularizer: Regularizer,
        phases: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.geometry = geometry
        self.upsamples = phases is not None
        self.phases = phases or 1
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.kernel_regularizer = kernel_regularizer
        self.spatial_norm = None if spatial_norm is None else spatial_norm.make(self.dtype_policy)
        self.channel_branches = [
            ChannelBranch(
                geometry.kernel_size,
                squeeze_ratio,
                channel_norm.make(self.dtype_policy),
                kernel_initializer,
                bias_initializer,
                kernel_regularizer,
                name=f"channel_branch_{phase}" if self.upsamples else "channel_branch",
                dtype=self.dtype_policy,
            )
            for phase in range(self.phases)
            if channel_norm is not None
        ]

    def build(self, input_shape: Shapes) -> None:
        inputs_shape, *guide_shapes = list_of_shapes(input_shape)
        channels: Any = inputs_shape[-1]  # an integer: the layers check it
        source_channels = guide_shapes[0][-1] if guide_shapes else channels
        if self.upsamples and not guide_shapes:
            self.depthwise_kernel, self.depthwise_bias = self._add_convolutions(
                "depthwise", (3, 3, channels, self.phases), (channels, self.phases), fan_in=9
            )
        if self.spatial_norm is not None:
            values = self.phases * self.geometry.heads * self.geometry.taps
            self.spatial_kernel, self.spatial_bias = self._add_convolutions(
                "spatial", (source_channels, values), (values,), fan_in=source_channels
            )
            shape = (None, *self.geometry.output_shape(inputs_shape), values)
            _build_norm(self.spatial_norm, (None, None, None, values), shape, "spatial")
        for branch in self.channel_branches:
            branch.build((None, channels))
        super().build(input_shape)

    def call(self, inputs: Tensors, training: bool | None = None) -> tuple[Filters, Filters]:
        inputs, *guides = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if self.spatial_norm is None:
            spatial, means = [None], pixel_projection.pool(inputs)
        else:
            values, means = self._values_and_means(inputs, guides)
            centred = isinstance(self.spatial_norm, FilterNorm)
            values = self.spatial_norm.scaled(values) if centred else _normalized(self.spatial_norm, values, "spatial")
            spatial = [values] if self.phases == 1 else tf.split(values, self.phases, axis=-1)
        return spatial, [branch(means) for branch in self.channel_branches] or [None]

    def _values_and_means(self, inputs, guides):
        """Computes the values that become spatial filters and, if there are channel filters, the channel means."""
        strides = self.geometry.strides
        if not self.upsamples and self.channel_branches and strides == (1, 1):
            return pixel_projection.project_and_pool(inputs, *self._weights(inputs.dtype))
        means = pixel_projection.pool(inputs) if self.channel_branches else None
        if guides:
            values = _project(guides, *self._weights(inputs.dtype))
        elif self.upsamples:
            values = self._from_neighbourhoods(inputs)
        else:
            strided = inputs[:, :: strides[0], :: strides[1]]
            values = pixel_projection.project(strided, *self._weights(inputs.dtype))
        return values, means

    def _weights(self, dtype):
        """Returns the kernel and the bias of the 1x1 convolution, centred if the normalisation subtracts the mean."""
        return [tf.cast(weight, dtype) for weight in self._centred(self.spatial_kernel, self.spatial_bias)]

    def _centred(self, *weights):
        if isinstance(self.spatial_norm, FilterNorm):
            return [self.spatial_norm.centred(weight) for weight in weights]
        return list(weights)

    def _from_neighbourhoods(self, inputs):
        """Applies the 3x3 depth-wise convolution and then the 1x1 convolution of every phase."""
        channels = inputs.shape[-1]
        pointwise = tf.reshape(self.spatial_kernel, [channels, self.phases, -1])
        bias = tf.reshape(tf.reduce_sum(self.depthwise_bias[..., None] * pointwise, axis=0), [-1]) + self.spatial_bias
        if backends.choose("separable_conv2d").name == "native":
            maps = [self._depthwise(inputs, phase) for phase in range(self.phases)]
            weights = self._centred(self.spatial_kernel, bias)
            return _project(maps, *(tf.cast(weight, inputs.dtype) for weight in weights))
        # Without the compiled ops, one convolution with the product of the two kernels takes less time.
        kernel = tf.reshape(self.depthwise_kernel[..., None] * pointwise, [3, 3, channels, -1])
        kernel, bias = self._centred(kernel, bias)
        outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), 1, "SAME")
        # On CPUs, tf.nn.conv2d returns another shape for an empty batch, and the gradient of tf.nn.bias_add fails.
        outputs = tf.reshape(outputs, [*layout.sizes(inputs)[:3], bias.shape[0]])
        return tf.cast(outputs, bias.dtype) + bias

    def _depthwise(self, inputs, phase):
        """Applies the depth-wise convolution of a phase with the op for filters per sample, all of them equal."""
        kernel = tf.cast(self.depthwise_kernel[None, ..., phase], inputs.dtype)
        filters = tf.broadcast_to(kernel, [layout.sizes(inputs)[0], *kernel.shape[1:]])
        return dynamic_depthwise_conv2d(inputs, filters)

    def _add_convolutions(self, name, shape, bias_shape, fan_in):
        """Adds the kernel and the bias of one convolution per phase, side by side, each initialised separately."""
        kernel = self.add_weight(
            name=f"{name}_kernel",
            shape=shape,
            initializer=side_by_side(lambda: fan_out_normal(self.kernel_initializer), self.phases),
            regularizer=self.kernel_regularizer,
        )
        bias = self.add_weight(
            name=f"{name}_bias",
            shape=bias_shape,
            initializer=side_by_side(lambda: uniform_by_fan_in(self.bias_initializer, fan_in), self.phases),
        )
        return kernel, bias


def _project(maps, kernel, bias):
    """Applies 1x1 convolutions: one part of the kernel to each of `maps`, or the whole kernel if there is one map."""
    parts = zip(maps, tf.split(kernel, len(maps), axis=-1), tf.split(bias, len(maps), axis=-1))
    return tf.concat([pixel_projection.project(*part) for part in parts], axis=-1)


def _build_norm(norm, build_shape, shape, kind):
    """Builds a norm. Raises a ValueError if it cannot have filters as its inputs, or is known to change their shape."""
    if isinstance(norm, FilterNorm):
        return norm.build(build_shape)
    try:
        norm.build(build_shape)
        output_shape = known_output_shape(norm, shape)
    except Exception as error:  # of any type, as it depends on the layer's own code
        raise _unsuitable(norm, shape, kind, error) from error
    if output_shape is not None:
        _require_equal_shapes(kind, shape, output_shape)


def _normalized(norm, values, kind):
    """Applies a norm that is not a `FilterNorm`, checks the shape of its outputs, and casts them to the input dtype."""
    try:
        outputs = norm(values)
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise _unsuitable(norm, values.shape, kind, error) from error
    several = isinstance(outputs, (list, tuple, dict))
    shape = [value.shape for value in tf.nest.flatten(outputs)] if several else outputs.shape
    _require_equal_shapes(kind, values.shape, shape)
    return tf.cast(outputs, values.dtype)


def _unsuitable(norm, shape, kind, error):
    expected = f"Expected `{kind}_norm` to be a layer of one input, filters of shape {tuple(shape)}"
    return ValueError(f"{expected}. Received: {type(norm).__name__}, which raised {type(error).__name__}: {error}")


def _require_equal_shapes(kind, shape, output_shape):
    try:
        fits = tf.TensorShape(output_shape).is_compatible_with(shape)
    except TypeError:  # the shapes of several outputs
        fits = False
    if not fits:
        expected = f"Expected `{kind}_norm` to keep the shape of the filters, {tuple(shape)}"
        raise ValueError(f"{expected}. Received: outputs of shape {tuple(output_shape)}")


class ChannelBranch(keras.layers.Layer):
    """Generates one filter per sample and channel from the channel means.

    The bottleneck has `int(squeeze_ratio * channels)` values, at least one.

    Input shape:
        `(batch, channels)`.

    Output shape:
        `(batch, kernel_h, kernel_w, channels)`.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        squeeze_ratio: float,
        norm: keras.layers.Layer,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        kernel_regularizer: Regularizer,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.squeeze_ratio = squeeze_ratio
        self.norm = norm
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape: tuple[int | None, int]) -> None:
        channels = input_shape[-1]
        width = max(int(self.squeeze_ratio * channels), 1)
        self.squeeze = self._dense("squeeze", width, channels, activation="relu")
        self.expand = self._dense("expand", math.prod(self.kernel_size) * channels, width)
        per_filter = isinstance(self.norm, FilterNorm)
        shape = (None, *self.kernel_size, channels) if per_filter else (None, self.expand.units)
        _build_norm(self.norm, shape, shape, "channel")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        values = self.expand(self.squeeze(inputs))
        # With the batch size instead of -1, a norm that changes the size cannot mix the filters of different samples.
        shape = [layout.sizes(inputs)[0], *self.kernel_size, inputs.shape[-1]]
        if isinstance(self.norm, FilterNorm):
            return self.norm(tf.reshape(values, shape))
        return tf.reshape(_normalized(self.norm, values, "channel"), shape)

    def _dense(self, name, units, fan_in, activation=None):
        dense = GeneratorDense(
            units,
            activation,
            kernel_initializer=fan_out_normal(self.kernel_initializer),
            bias_initializer=uniform_by_fan_in(self.bias_initializer, fan_in),
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build((None, fan_in))
        return dense
