# SPDX-License-Identifier: Apache-2.0
"""Base classes of the layers whose filters are an input of the layer or come from a generator that the user passes."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import (
    Regularizer,
    Shape,
    Shapes,
    Size,
    Tensors,
    known_output_shape,
    list_of_shapes,
)
from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends.jit_layer import JitLayer
from keras_dynfilter.ops.backends.softmax import softmax
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import (
    shape_to_channels_first,
    shape_to_channels_last,
    standardize_data_format,
    to_channels_first,
    to_channels_last,
)
from keras_dynfilter.ops.local_filter import NORMALIZATIONS

DYNAMIC_BIASES = (None, "before", "after")


class DynamicFilterLayer(JitLayer):
    """Filters images with filters that are an input of the layer, or that its generator predicts.

    A subclass implements

    - `filter_shapes(inputs_shape)`: the shapes that the filters may have;
    - `output_channels(channels)`: the number of output channels;
    - `split_filters(filters)`: the filters and the dynamic bias (or None) in the channels-last layout;
    - `apply_filters(inputs, filters)`: the filtered inputs, with all tensors in the channels-last layout.
    """

    def __init__(
        self,
        *,
        kernel_size: Size,
        strides: Size,
        padding: str,
        data_format: str | None,
        dilation_rate: Size,
        normalization: str | None,
        separable: bool,
        dynamic_bias: str | None,
        generator: keras.layers.Layer | None,
        filters_regularizer: Regularizer,
        heads: int = 1,
        even: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.geometry = Geometry.make(kernel_size, strides, dilation_rate, padding, heads, even)
        self.kernel_size = self.geometry.kernel_size
        self.strides = self.geometry.strides
        self.padding = self.geometry.padding
        self.data_format = standardize_data_format(data_format)
        self.dilation_rate = self.geometry.dilation_rate
        self.normalization = choice(normalization, "normalization", NORMALIZATIONS)
        self.separable = bool(choice(separable, "separable", (False, True)))
        self.dynamic_bias = choice(dynamic_bias, "dynamic_bias", DYNAMIC_BIASES)
        if generator is not None and not isinstance(generator, keras.layers.Layer):
            expected = "Expected `generator` to be None or a Keras layer or model"
            raise ValueError(f"{expected}. Received: generator={generator!r}")
        self.generator = generator
        self.filters_regularizer = keras.regularizers.get(filters_regularizer)

    def build(self, input_shape: Shapes) -> None:
        inputs_shape, other_shape = self._inputs_and_other(list_of_shapes(input_shape))
        if self.generator is not None and not self.generator.built:
            # A symbolic call also builds models that define neither `build` nor `compute_output_shape`.
            batch, *shape = inputs_shape if other_shape is None else other_shape
            self.generator(keras.Input(shape, batch_size=batch))
        self.compute_output_shape(input_shape)
        super().build(input_shape)

    def call(self, inputs: Tensors) -> tf.Tensor:
        inputs, filters = self._inputs_and_filters(inputs)
        filters, bias = self.split_filters(filters)
        if self.data_format == "channels_first":
            inputs = to_channels_last(inputs)
        if self.dynamic_bias == "before":
            inputs = inputs + bias
        outputs = self.apply_filters(inputs, filters)
        if self.dynamic_bias == "after":
            outputs = outputs + bias
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        inputs_shape, other_shape = self._inputs_and_other(list_of_shapes(input_shape))
        filters_shape = other_shape
        if self.generator is not None:
            filters_shape = known_output_shape(self.generator, inputs_shape if other_shape is None else other_shape)
        batch, *_, channels = shape = self._check_shapes(inputs_shape, filters_shape)
        output_shape = batch, *self.geometry.output_shape(shape), self.output_channels(channels)
        return shape_to_channels_first(output_shape) if self.data_format == "channels_first" else output_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "kernel_size": self.kernel_size,
                "strides": self.strides,
                "padding": self.padding,
                "data_format": self.data_format,
                "dilation_rate": self.dilation_rate,
                "normalization": self.normalization,
                "separable": self.separable,
                "dynamic_bias": self.dynamic_bias,
                "generator": keras.saving.serialize_keras_object(self.generator),
                "filters_regularizer": keras.regularizers.serialize(self.filters_regularizer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DynamicFilterLayer":
        generator = keras.saving.deserialize_keras_object(config.get("generator"))
        return cls(**{**config, "generator": generator})

    def _inputs_and_other(self, values):
        """Splits the tensors or shapes of a call into the inputs and the filters or guide (None: no guide)."""
        if len(values) == 2:
            return tuple(values)
        if self.generator is None:
            expected = "a list [inputs, filters], as the layer has no `generator`"
        elif len(values) == 1:
            return values[0], None
        else:
            expected = "a tensor, or a list [inputs, guide] with a guide for the `generator`"
        raise ValueError(f"Expected `inputs` to be {expected}. Received: {len(values)} tensor(s)")

    def _inputs_and_filters(self, inputs):
        """Generates the filters if there is a generator, checks them, and adds their penalty to the losses."""
        inputs, filters = self._inputs_and_other(inputs if isinstance(inputs, (list, tuple)) else [inputs])
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        if self.generator is not None:
            filters = self.generator(inputs if filters is None else filters)
        self._check_shapes(inputs.shape, filters.shape)
        if self.filters_regularizer is not None:
            penalty = self.filters_regularizer(tf.cast(filters, self.variable_dtype))
            batch = tf.cast(tf.shape(filters)[0], penalty.dtype)  # as Keras does for activity regularizers
            self.add_loss(tf.math.divide_no_nan(penalty, batch))
        return inputs, tf.cast(filters, inputs.dtype)

    def _check_shapes(self, inputs_shape, filters_shape):
        """Checks the shapes (not a `filters_shape` of None) and returns `inputs_shape` in channels-last order.

        Raises:
            ValueError: The shapes contradict the arguments or each other.
        """
        shape = tuple(inputs_shape)
        if len(shape) != 4:
            raise ValueError(f"Expected `inputs` to have rank 4 ({self.data_format}). Received: inputs.shape={shape}")
        if self.data_format == "channels_first":
            shape = shape_to_channels_last(shape)
        allowed = self.filter_shapes(shape)
        if filters_shape is not None and not any(_compatible(filters_shape, option) for option in allowed):
            name = "`filters`" if self.generator is None else "the output of `generator`"
            expected = " or ".join(str(option) for option in allowed)
            raise ValueError(f"Expected {name} to have shape {expected}. Received: shape={tuple(filters_shape)}")
        return shape


class PerSampleFilterLayer(DynamicFilterLayer):
    """Filters each sample with a filter bank of its own. The filters have the shape of a bank, or they are flat.

    A subclass implements `bank_depth(channels)`: the sizes of a bank after the axes of the window.
    """

    def count_filter_values(self, channels: int) -> int:
        """Returns the number of values that a generator must produce for each sample.

        Args:
            channels: Positive integer, the number of channels of the image.

        Returns:
            The number of values of a flat filter bank, plus one for the dynamic bias if there is one.

        Raises:
            ValueError: `channels` is not a positive integer.
        """
        return math.prod(self._bank_shape(checks.positive(channels, "channels"))) + (self.dynamic_bias is not None)

    def filter_shapes(self, inputs_shape: Shape) -> list[Shape]:
        channels = inputs_shape[-1]
        if channels is None:
            received = f"{tuple(inputs_shape)} in channels-last order"
            raise ValueError(f"Expected `inputs` to have a known number of channels. Received: shape={received}")
        flat = (inputs_shape[0], self.count_filter_values(channels))
        return [flat] if self.dynamic_bias else [flat, (inputs_shape[0], *self._bank_shape(channels))]

    def split_filters(self, filters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        if self.dynamic_bias is None:
            return filters, None
        return filters[:, :-1], tf.reshape(filters[:, -1], [-1, 1, 1, 1])

    def banks(self, filters: tf.Tensor, channels: int) -> list[tf.Tensor]:
        """Returns one normalised bank `[batch, kernel_h, kernel_w, *depth]`, or a vertical and a horizontal bank.

        The softmax is over all values of the bank that one output channel sums over. If separable, this holds for the
        vertical bank, and the softmax of the horizontal bank is over the taps of each filter. The products of both
        banks then also sum to 1.
        """
        bank = tf.reshape(filters, [-1, *self._bank_shape(channels)])
        if not self.separable:
            return [self._normalized(bank, bank.shape.rank - 1)]
        vertical, horizontal = tf.split(bank, self.kernel_size, axis=1)
        vertical = self._normalized(vertical, bank.shape.rank - 1)
        return [tf.expand_dims(vertical, 2), tf.expand_dims(self._normalized(horizontal, 2), 1)]

    def _bank_shape(self, channels):
        window = (sum(self.kernel_size),) if self.separable else self.kernel_size
        return (*window, *self.bank_depth(channels))

    def _normalized(self, bank, end):
        """Applies the softmax over axes 1 to `end - 1`, or nothing if `normalization` is None."""
        if self.normalization is None:
            return bank
        shape = bank.shape.as_list()[1:]
        logits = tf.reshape(bank, [-1, math.prod(shape[: end - 1]), math.prod(shape[end - 1 :])])
        accumulate = checks.accumulation(bank.dtype)
        taps = tf.cast(softmax(tf.cast(logits, accumulate), axis=1), bank.dtype)
        return tf.reshape(taps, [-1, *shape])


def _compatible(shape, expected):
    return tf.TensorShape(shape).is_compatible_with(expected)
