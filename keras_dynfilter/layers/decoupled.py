# SPDX-License-Identifier: Apache-2.0
"""What DDF2D and DDFUp2D share: arguments, initialisers, the branch that generates the channel filters."""

import math
import numbers

import keras
import tensorflow as tf

from keras_dynfilter.layers.filter_norm import FilterNorm
from keras_dynfilter.layers.jit_layer import JitLayer
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.ddf import COMBINES
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import standardize_data_format

NORMALIZATIONS = ("filter", "batch", "sigmoid", None)


class DecoupledLayer(JitLayer):
    """Arguments of the layers that generate decoupled filters. `own_arguments` names those that a subclass adds."""

    own_arguments = ()

    def __init__(
        self,
        *,
        kernel_size,
        squeeze_ratio,
        heads,
        combine,
        gain,
        data_format,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        strides=1,
        dilation_rate=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.geometry = Geometry.make(kernel_size, strides, dilation_rate, "same", heads)
        self.kernel_size = self.geometry.kernel_size
        self.heads = self.geometry.heads
        number = isinstance(squeeze_ratio, numbers.Real) and not isinstance(squeeze_ratio, bool)
        if not number or not 0 < squeeze_ratio < math.inf:
            raise ValueError(f"Expected `squeeze_ratio` to be a positive number. Received: {squeeze_ratio=}")
        self.squeeze_ratio = float(squeeze_ratio)
        self.combine = choice(combine, "combine", COMBINES)
        self.gain = gain
        self.data_format = standardize_data_format(data_format)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def filter_norm(self, kind, **options):
        """A `FilterNorm` for the window of the layer, in the layout that the ops work in."""
        options = {"gain": self.gain, "data_format": "channels_last", "dtype": self.dtype_policy, **options}
        return FilterNorm(kind, self.kernel_size, name=f"{kind}_norm", **options)

    def channel_filters(self, norm, name="channel_filters"):
        """A branch that generates channel filters."""
        return ChannelFilters(
            self.kernel_size,
            self.squeeze_ratio,
            norm,
            self.kernel_initializer,
            self.bias_initializer,
            self.kernel_regularizer,
            name=name,
            dtype=self.dtype_policy,
        )

    def add_convolution(self, name, shape, bias_shape, fan_in, branches=1):
        """Adds the kernel and the bias of one of the layer's own convolutions.

        With `branches`, these are as many convolutions side by side along the last axis, each initialised by itself.
        """
        kernel = self.add_weight(
            name=f"{name}_kernel",
            shape=shape,
            initializer=side_by_side(lambda: fan_out_normal(self.kernel_initializer), branches),
            regularizer=self.kernel_regularizer,
        )
        bias = self.add_weight(
            name=f"{name}_bias",
            shape=bias_shape,
            initializer=side_by_side(lambda: uniform_by_fan_in(self.bias_initializer, fan_in), branches),
        )
        return kernel, bias

    def check_inputs(self, shape, name="inputs"):
        """Returns `shape` in channels-last order, unless it is not that of images the layer can filter."""
        shape = tuple(shape)
        if len(shape) != 4:
            raise ValueError(f"Expected `{name}` to have rank 4 ({self.data_format}). Received: {name}.shape={shape}")
        if self.data_format == "channels_first":
            shape = (shape[0], *shape[2:], shape[1])
        channels = shape[-1]
        if channels is None:
            raise ValueError(f"Expected `{name}` to have a known number of channels. Received: {name}.shape={shape}")
        if name == "inputs" and channels % self.heads:
            raise ValueError(f"Expected `heads` to divide the channels. Received: heads={self.heads}, {channels=}")
        return shape

    def spec(self, channels):
        """What Keras checks at every call."""
        return keras.layers.InputSpec(ndim=4, axes={1 if self.data_format == "channels_first" else -1: channels})

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "kernel_size": self.kernel_size,
                **{name: getattr(self, name) for name in self.own_arguments},
                "squeeze_ratio": self.squeeze_ratio,
                "heads": self.heads,
                "combine": self.combine,
                "gain": self.gain,
                "data_format": self.data_format,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
                "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            }
        )
        return config


class ChannelFilters(keras.layers.Layer):
    """Generates a filter per sample and channel from the means of the channels.

    `[batch, channels]` to `[batch, kernel_h, kernel_w, channels]`, through a bottleneck of `squeeze_ratio * channels`
    values, rounded down, but of at least one.
    """

    def __init__(
        self, kernel_size, squeeze_ratio, norm, kernel_initializer, bias_initializer, kernel_regularizer, **kwargs
    ):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.squeeze_ratio = squeeze_ratio
        self.norm = norm
        self.initializers = kernel_initializer, bias_initializer
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape):
        channels = input_shape[-1]
        width = max(int(self.squeeze_ratio * channels), 1)
        self.squeeze = self._dense("squeeze", width, channels, activation="relu")
        self.expand = self._dense("expand", math.prod(self.kernel_size) * channels, width)
        per_filter = isinstance(self.norm, FilterNorm)
        self.norm.build((None, *self.kernel_size, channels) if per_filter else (None, self.expand.units))
        super().build(input_shape)

    def call(self, inputs, training=None):
        values = self.expand(self.squeeze(inputs))
        if not isinstance(self.norm, FilterNorm):
            values = apply_norm(self.norm, values, training)
        filters = tf.reshape(values, [-1, *self.kernel_size, inputs.shape[-1]])
        return self.norm(filters) if isinstance(self.norm, FilterNorm) else filters

    def _dense(self, name, units, fan_in, activation=None):
        kernel_initializer, bias_initializer = self.initializers
        dense = keras.layers.Dense(
            units,
            activation,
            kernel_initializer=fan_out_normal(kernel_initializer),
            bias_initializer=uniform_by_fan_in(bias_initializer, fan_in),
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build((None, fan_in))
        return dense


def apply_norm(norm, values, training):
    """Calls what stands in for a `FilterNorm`; of these, only batch normalisation tells training from inference."""
    if isinstance(norm, keras.layers.BatchNormalization):
        return norm(values, training=training)
    return norm(values)


def fan_out_normal(initializer):
    """A fresh copy of `initializer`, or the one of the DDF networks: He's by the outputs, not cut off."""
    if initializer is None:
        return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return _fresh(initializer)


def uniform_by_fan_in(initializer, fan_in):
    """A fresh copy of `initializer`, or the one of the DDF networks: uniform within `1 / sqrt(fan_in)` of 0."""
    if initializer is None:
        limit = 1 / math.sqrt(fan_in)
        return keras.initializers.RandomUniform(-limit, limit)
    return _fresh(initializer)


def side_by_side(make, parts):
    """An initializer that joins, along the last axis, the values of `parts` initializers that `make` returns."""
    if parts == 1:
        return make()

    def initialize(shape, dtype=None, **_):
        part = (*shape[:-1], shape[-1] // parts)
        return tf.concat([make()(part, dtype=dtype) for _ in range(parts)], axis=-1)

    return initialize


def _fresh(initializer):
    """A copy: one object used twice would draw the same numbers, where it has no seed."""
    if isinstance(initializer, keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer
