# SPDX-License-Identifier: Apache-2.0
"""The base class of `DDF2D` and `DDFUp2D`, the layers that filter with decoupled dynamic filters."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Activation, ImageShape, Initializer, Regularizer, Shape, Size
from keras_dynfilter.layers.norm_template import NormTemplate
from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends.jit_layer import JitLayer
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.ddf import COMBINES
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import (
    shape_to_channels_first,
    shape_to_channels_last,
    standardize_data_format,
    to_channels_first,
)

MAX_SQUEEZE_RATIO = 100  # far beyond any use, so that a mistake does not fill the memory


class DecoupledLayer(JitLayer):
    """Holds the arguments that `DDF2D` and `DDFUp2D` share, checks shapes, and adds the bias and the activation.

    A subclass makes `self.generator`, a `FilterGenerator`, from `generator_arguments`. It calls the generator and then
    the op.
    """

    def __init__(
        self,
        *,
        kernel_size: Size,
        squeeze_ratio: float,
        heads: int,
        combine: str,
        spatial_norm: str | keras.layers.Layer | None,
        channel_norm: str | keras.layers.Layer | None,
        gain: str,
        activation: Activation,
        use_bias: bool,
        data_format: str | None,
        generator_initializer: Initializer,
        generator_bias_initializer: Initializer,
        bias_initializer: Initializer,
        generator_regularizer: Regularizer,
        bias_regularizer: Regularizer,
        strides: Size = (1, 1),
        dilation_rate: Size = (1, 1),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.geometry = Geometry.make(kernel_size, strides, dilation_rate, "same", heads)
        self.kernel_size = self.geometry.kernel_size
        self.heads = self.geometry.heads
        expected = f"a positive number of at most {MAX_SQUEEZE_RATIO}"
        self.squeeze_ratio = checks.number(
            squeeze_ratio, "squeeze_ratio", above=0, at_most=MAX_SQUEEZE_RATIO, expected=expected
        )
        self.combine = choice(combine, "combine", COMBINES)
        self.spatial_norm = NormTemplate(spatial_norm, "spatial", self.kernel_size, gain)
        self.channel_norm = NormTemplate(channel_norm, "channel", self.kernel_size, gain)
        self.activation = keras.activations.get(activation)
        self.use_bias = bool(choice(use_bias, "use_bias", (False, True)))
        self.data_format = standardize_data_format(data_format)
        self.generator_initializer = keras.initializers.get(generator_initializer)
        self.generator_bias_initializer = keras.initializers.get(generator_bias_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.generator_regularizer = keras.regularizers.get(generator_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias = None

    def generator_arguments(self) -> dict[str, Any]:
        """Returns the arguments of `FilterGenerator` that do not depend on the subclass."""
        return dict(
            geometry=self.geometry,
            squeeze_ratio=self.squeeze_ratio,
            kernel_initializer=self.generator_initializer,
            bias_initializer=self.generator_bias_initializer,
            kernel_regularizer=self.generator_regularizer,
            name="generator",
            dtype=self.dtype_policy,
        )

    def add_bias(self, channels: int) -> None:
        """Adds the weight of the bias if `use_bias` is True."""
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(channels,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def finish_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Applies the bias and the activation to channels-last outputs and converts them to `data_format`."""
        if self.bias is not None:
            outputs += tf.cast(self.bias, outputs.dtype)
        outputs = self.activation(outputs)
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def check_inputs(self, shape: Shape, name: str = "inputs") -> ImageShape:
        """Checks the shape of images and returns it in channels-last order.

        Raises:
            ValueError: The rank is not 4, the number of channels is unknown or 0, or `heads` does not divide it.
        """
        received = f"Received: {name}.shape={tuple(shape)}"
        if len(shape) != 4:
            raise ValueError(f"Expected `{name}` to have rank 4 ({self.data_format}). {received}")
        ordered = shape_to_channels_last(shape) if self.data_format == "channels_first" else shape
        batch, height, width, channels = ordered
        if channels is None:
            raise ValueError(f"Expected `{name}` to have a known number of channels. {received}")
        if channels == 0:
            raise ValueError(f"Expected `{name}` to have at least one channel. {received}")
        if name == "inputs" and channels % self.heads:
            raise ValueError(f"Expected `heads` to divide the channels. Received: heads={self.heads}, {channels=}")
        return batch, height, width, channels

    def output_shape_in_layout(self, shape: Shape) -> Shape:
        """Returns a channels-last shape in the order of `data_format`."""
        return shape_to_channels_first(shape) if self.data_format == "channels_first" else shape

    def spec(self, channels: int) -> keras.layers.InputSpec:
        """Returns the `InputSpec` that Keras checks at every call: rank 4 and the number of channels."""
        return keras.layers.InputSpec(ndim=4, axes={1 if self.data_format == "channels_first" else -1: channels})

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "kernel_size": self.kernel_size,
                "squeeze_ratio": self.squeeze_ratio,
                "heads": self.heads,
                "combine": self.combine,
                "spatial_norm": self.spatial_norm.get_config(),
                "channel_norm": self.channel_norm.get_config(),
                "activation": keras.activations.serialize(self.activation),
                "use_bias": self.use_bias,
                "data_format": self.data_format,
                "generator_initializer": keras.initializers.serialize(self.generator_initializer),
                "generator_bias_initializer": keras.initializers.serialize(self.generator_bias_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
                "generator_regularizer": keras.regularizers.serialize(self.generator_regularizer),
                "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DecoupledLayer":
        norms = {name: config[name] for name in ("spatial_norm", "channel_norm") if isinstance(config.get(name), dict)}
        for name, norm in norms.items():
            unbuilt = {key: value for key, value in norm.items() if key != "build_config"}
            norms[name] = keras.saving.deserialize_keras_object(unbuilt)
        return cls(**{**config, **norms})
