# SPDX-License-Identifier: Apache-2.0
"""Filter normalisation: sets the mean and the standard deviation of every generated filter over its taps."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Initializer, Shape, Size
from keras_dynfilter.ops import checks, layout
from keras_dynfilter.ops.checks import choice, pair
from keras_dynfilter.ops.layout import standardize_data_format

KINDS = ("spatial", "channel")
GAINS = {"linear": 1.0, "relu": math.sqrt(2.0)}
SCALES = ("constant", "filter", "tap")
CENTERS = (None, "filter", "tap")


@keras.saving.register_keras_serializable("keras_dynfilter")
class FilterNorm(keras.layers.Layer):
    """Normalises every generated filter over its own taps.

        outputs = (filters - mean) / (std + epsilon) * scale + center

    `mean` and `std` are taken over the taps of one filter: per sample, pixel and head for spatial filters, per sample
    and channel for channel filters. `std` is the unbiased standard deviation, which divides by `taps - 1`. Nothing is
    averaged over a batch, so training and inference are the same. A filter whose taps are all equal becomes 0 before
    `center` is added, with a gradient of 0.

    In the paper, `scale` and `center` are learnable, with one value for all spatial filters and one value per channel
    for channel filters: `"filter"` with one head. The authors' networks have a constant scale for spatial filters, one
    learnable scale per channel and tap for channel filters, and no `center`. The defaults follow these networks.

    Args:
        kind: `"spatial"` or `"channel"`.
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`, the window of a filter. It has at least two taps.
        gain: Factor of the constant or initial scale `gain / sqrt(taps)`: `"relu"` (the square root of 2), `"linear"`
            (1), or a positive number.
        scale: `"constant"`: `gain / sqrt(taps)`, without weights; `"filter"`: one learnable value per head or channel;
            or `"tap"`: one learnable value per head or channel and tap. None: `"constant"` for spatial filters, `"tap"`
            for channel filters.
        center: None; `"filter"`: adds one learnable value per head or channel; or `"tap"`: one learnable value per head
            or channel and tap.
        epsilon: Non-negative number, added to the standard deviation.
        data_format: Layout of spatial filters, `"channels_last"` or `"channels_first"`; None:
            `keras.backend.image_data_format()`.
        scale_initializer: Initializer of a learnable scale. None: for `"tap"`, normal with mean 0 and standard
            deviation `gain / sqrt(taps)`, as in the authors' code; for `"filter"`, the constant `gain / sqrt(taps)`.
        center_initializer: Initializer of `center`. None: for `"tap"`, normal with mean 0 and standard deviation 1, as
            in the authors' code; for `"filter"`, zeros.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        - Spatial filters: `(batch, height, width, heads * kernel_h * kernel_w)` if `data_format="channels_last"`,
          `(batch, heads * kernel_h * kernel_w, height, width)` if `data_format="channels_first"`. The channel axis is
          head-major, with the taps in row-major order.
        - Channel filters: `(batch, kernel_h, kernel_w, channels)` in both layouts.

    Output shape:
        The input shape. The computation is in float32 or wider.

    Raises:
        ValueError: An argument or the shape of the filters is not as described.

    Example:

    >>> taps = np.arange(9.0).reshape(1, 1, 1, 9)
    >>> FilterNorm("spatial", gain="linear")(taps).numpy().round(3).ravel()[:5]
    array([-0.487, -0.365, -0.243, -0.122,  0.   ], dtype=float32)

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.2.
    """

    def __init__(
        self,
        kind: str = "spatial",
        kernel_size: Size = 3,
        gain: str | float = "relu",
        scale: str | None = None,
        center: str | None = None,
        epsilon: float = 1e-10,
        data_format: str | None = None,
        scale_initializer: Initializer = None,
        center_initializer: Initializer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = choice(kind, "kind", KINDS)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.taps = math.prod(self.kernel_size)
        if self.taps < 2:
            expected = "Expected `kernel_size` to have at least two taps, as one tap has no deviation"
            raise ValueError(f"{expected}. Received: kernel_size={self.kernel_size}")
        self.gain = gain if isinstance(gain, str) else _gain(gain)
        self.deviation = _gain(gain) / math.sqrt(self.taps)
        default = "constant" if kind == "spatial" else "tap"
        self.scale = choice(default if scale is None else scale, "scale", SCALES)
        self.center = choice(center, "center", CENTERS)
        self.epsilon = checks.number(epsilon, "epsilon", at_least=0)
        self.data_format = standardize_data_format(data_format)
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.center_initializer = keras.initializers.get(center_initializer)
        self.scale_weight = self.center_weight = None

    def build(self, input_shape: Shape) -> None:
        filters = self._count_filters(input_shape)
        if self.scale != "constant":
            constant, normal = keras.initializers.Constant, keras.initializers.RandomNormal
            default = constant(self.deviation) if self.scale == "filter" else normal(0.0, self.deviation)
            self.scale_weight = self._add_affine("scale", self.scale, filters, self.scale_initializer or default)
        if self.center is not None:
            default = "zeros" if self.center == "filter" else keras.initializers.RandomNormal(0.0, 1.0)
            self.center_weight = self._add_affine("center", self.center, filters, self.center_initializer or default)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self._count_filters(inputs.shape)
        return self.scaled(self.centred(inputs))

    def centred(self, values: tf.Tensor) -> tf.Tensor:
        """Subtracts the mean of the taps of each filter, in float32 or wider.

        If a generator is linear, its weights can be centred instead of the filters: the result is the same for far
        fewer values.

        Args:
            values: Filters with the shape of the inputs. Spatial filters in channels-last order may have any leading
                axes.
        """
        grouped, axis = self._grouped(values)
        first = grouped[(slice(None),) * axis + (slice(1),)]
        # The mean of equal taps may be rounded, but their differences from the first tap are exactly 0. The result does
        # not depend on the value that is subtracted here, so this value needs no gradient.
        differences = grouped - tf.stop_gradient(first)
        return _reshape_like(values, differences - tf.reduce_mean(differences, axis, keepdims=True))

    def scaled(self, centred: tf.Tensor) -> tf.Tensor:
        """Divides filters of mean 0 by their standard deviation, then applies `scale` and `center`."""
        values, axis = self._grouped(centred)
        variance = tf.reduce_sum(tf.square(values), axis, keepdims=True) * (1 / (self.taps - 1))
        # The derivative of the square root at 0 is infinite, so no derivative of any order may pass through it there.
        varies = variance > np.finfo(values.dtype.as_numpy_dtype).tiny
        deviation = tf.sqrt(tf.where(varies, variance, tf.ones_like(variance)))
        constant = self.deviation if self.scale == "constant" else 1.0
        factor = tf.where(varies, constant / (deviation + self.epsilon), tf.zeros_like(variance))
        outputs = values * factor
        if self.scale_weight is not None:
            outputs *= self._broadcast(self.scale_weight, values)
        if self.center_weight is not None:
            outputs += self._broadcast(self.center_weight, values)
        return tf.cast(_reshape_like(centred, outputs), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._count_filters(input_shape)
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "kind": self.kind,
                "kernel_size": self.kernel_size,
                "gain": self.gain,
                "scale": self.scale,
                "center": self.center,
                "epsilon": self.epsilon,
                "data_format": self.data_format,
                "scale_initializer": keras.initializers.serialize(self.scale_initializer),
                "center_initializer": keras.initializers.serialize(self.center_initializer),
            }
        )
        return config

    def _count_filters(self, shape):
        """Checks that `shape` is the shape of filters and returns the number of heads or channels."""
        shape = tuple(shape)
        spatial = self.kind == "spatial"
        axis = 1 if spatial and self.data_format == "channels_first" else -1
        size = shape[axis] if len(shape) == 4 else None
        if size is None or (size % self.taps != 0 if spatial else shape[1:3] != self.kernel_size):
            expected = f"(batch, {self.kernel_size[0]}, {self.kernel_size[1]}, channels)"
            if spatial:
                filters = f"heads * {self.taps}"
                last = self.data_format == "channels_last"
                expected = f"(batch, height, width, {filters})" if last else f"(batch, {filters}, height, width)"
            raise ValueError(f"Expected `inputs` to have shape {expected}. Received: inputs.shape={shape}")
        return size // self.taps if spatial else size

    def _add_affine(self, name, per, filters, initializer):
        taps = self.taps if per == "tap" else 1
        shape = (filters, taps) if self.kind == "spatial" else (taps, filters)
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def _grouped(self, values):
        """Returns `values` in float32 or wider, reshaped to have an axis of taps, and the index of this axis."""
        values = tf.cast(values, checks.accumulation(values.dtype))
        sizes = layout.sizes(values)
        if self.kind == "channel":
            return tf.reshape(values, [sizes[0], self.taps, sizes[3]]), 1
        if self.data_format == "channels_first":
            return tf.reshape(values, [sizes[0], sizes[1] // self.taps, self.taps, *sizes[2:]]), 2
        if sizes[-1] != self.taps:
            values = tf.reshape(values, [*sizes[:-1], sizes[-1] // self.taps, self.taps])
        return values, values.shape.rank - 1

    def _broadcast(self, weight, values):
        if self.kind == "spatial" and self.data_format == "channels_first":
            weight = weight[..., None, None]
        return tf.cast(weight, values.dtype)


def _reshape_like(values, grouped):
    """Returns `grouped` in the shape of `values`."""
    return tf.reshape(grouped, layout.sizes(values))


def _gain(gain):
    if isinstance(gain, str) and gain in GAINS:
        return GAINS[gain]
    return checks.number(gain, "gain", above=0, expected="'relu', 'linear' or a positive number")
