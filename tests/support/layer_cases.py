# SPDX-License-Identifier: Apache-2.0
"""Lists the layers with arguments and inputs, for the contract test and for tests of single layers."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_dynfilter import regularizers
from keras_dynfilter.layers import (
    DDF2D,
    DDFUp2D,
    DynamicConv2D,
    DynamicDepthwiseConv2D,
    DynamicLocalFilter2D,
    FilterNorm,
    FilterRepository,
    RepositoryConv2D,
    UntiedBias,
)
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer with arguments, and the shapes of its inputs.

    Attributes:
        layer: The class.
        arguments: Dict of arguments that JSON can hold.
        shapes: Channels-last shapes of the inputs without the batch. Shapes of rank 3 follow the data format.
        objects: Function that returns further arguments, which are created anew for each layer: Keras layers and
            regularizers. Takes `data_format` and `dtype` as keywords, if the layer is made with them.
        unknown_sizes: Whether the layer accepts images of unknown height and width.
        empty_batches: Whether the layer accepts empty batches. Convolutions of TensorFlow, as in a generator, do not.
    """

    layer: type
    arguments: dict
    shapes: tuple
    objects: Callable[..., dict] = lambda **options: {}
    unknown_sizes: bool = True
    empty_batches: bool = True

    @property
    def has_data_format(self):
        without = (UntiedBias, UpsamplingConv2D, FilterRepository)
        return self.layer not in without and self.arguments.get("kind") != "channel"

    def make(self, **options):
        """Returns a new layer."""
        objects = self.objects(**{name: options[name] for name in ("data_format", "dtype") if name in options})
        return self.layer(**{**self.arguments, **objects, **options})

    def batched(self, batch, data_format="channels_last", unknown=False):
        """Returns the shapes of the inputs with the batch size, in a data format, optionally of unknown sizes."""
        return [(batch, *in_layout(shape, data_format, unknown)) for shape in self.shapes]

    def call(self, layer, inputs):
        """Calls a layer, or a function such as `compute_output_shape`, with its one input or a list of its inputs."""
        return layer(inputs if len(inputs) > 1 else inputs[0])

    def inputs(self, batch=2, data_format="channels_last"):
        """Returns normally distributed numbers. They are equal in the two data formats."""
        generator = np.random.default_rng(3)
        values = [generator.standard_normal((batch, *shape)).astype("float32") for shape in self.shapes]
        return [to_layout(value, data_format) for value in values]

    def model(self, **options):
        """Returns a functional model of the layer."""
        inputs = [keras.Input(shape) for shape in self.shapes]
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], self.call(self.make(**options), inputs))


def in_layout(shape, data_format, unknown=False):
    """Converts a channels-last shape without batch to a data format. `unknown` hides height and width."""
    if len(shape) != 3:
        return tuple(shape)
    size = (None, None) if unknown else shape[:2]
    return (*size, shape[2]) if data_format == "channels_last" else (shape[2], *size)


def to_layout(value, data_format):
    """Transposes channels-last images with a batch to a data format."""
    return np.moveaxis(value, 3, 1) if value.ndim == 4 and data_format == "channels_first" else value


def from_layout(value, data_format):
    """Transposes images with a batch in a data format to channels-last."""
    value = np.asarray(value)
    return np.moveaxis(value, 1, 3) if value.ndim == 4 and data_format == "channels_first" else value


def _given_filters(layer, arguments, image):
    """Returns a case of a dynamic layer that is called with an image and its filters."""
    probe = layer(**arguments)
    if layer is DynamicLocalFilter2D:
        filters = (*probe.geometry.output_shape((None, *image)), probe.count_filter_values())
    else:
        filters = (probe.count_filter_values(image[-1]),)
    return LayerCase(layer, arguments, (image, filters))


def _pooled(values, data_format=None, **options):
    """Returns a generator that predicts flat filters from the means of the channels."""
    pool = keras.layers.GlobalAveragePooling2D(data_format=data_format, **options)
    return keras.Sequential([pool, keras.layers.Dense(values, **options)])


CASES = {
    "local": _given_filters(DynamicLocalFilter2D, dict(kernel_size=3), (7, 8, 3)),
    "local, options": _given_filters(
        DynamicLocalFilter2D,
        dict(kernel_size=(3, 5), strides=(2, 1), padding="valid", dilation_rate=(1, 2), heads=2, depth_multiplier=3),
        (9, 14, 4),
    ),
    "local, separable": _given_filters(
        DynamicLocalFilter2D,
        dict(kernel_size=5, normalization="softmax", separable=True, dynamic_bias="before"),
        (6, 7, 2),
    ),
    "local, bias after": _given_filters(
        DynamicLocalFilter2D, dict(kernel_size=3, strides=3, dynamic_bias="after"), (7, 8, 1)
    ),
    "local, generator": LayerCase(
        DynamicLocalFilter2D,
        dict(kernel_size=3),
        ((6, 7, 2),),
        lambda data_format=None, **options: dict(
            generator=keras.layers.Conv2D(9, 3, padding="same", data_format=data_format, **options),
            filters_regularizer=regularizers.Smoothness(0.1, data_format=data_format),
        ),
        empty_batches=False,
    ),
    "conv": _given_filters(DynamicConv2D, dict(filters=1, kernel_size=3), (7, 8, 3)),
    "conv, options": _given_filters(
        DynamicConv2D,
        dict(filters=5, kernel_size=(4, 3), strides=2, padding="valid", dilation_rate=(1, 2)),
        (9, 14, 3),
    ),
    "conv, separable": _given_filters(
        DynamicConv2D,
        dict(filters=2, kernel_size=5, normalization="softmax", separable=True, dynamic_bias="after"),
        (6, 7, 2),
    ),
    "conv, generator": LayerCase(
        DynamicConv2D,
        dict(filters=2, kernel_size=3, filters_regularizer="l2"),
        ((6, 7, 3),),
        lambda **options: dict(generator=_pooled(54, **options)),
    ),
    "depthwise": _given_filters(DynamicDepthwiseConv2D, dict(kernel_size=3, strides=2, dilation_rate=2), (7, 8, 3)),
    "depthwise, separable": _given_filters(
        DynamicDepthwiseConv2D,
        dict(kernel_size=5, padding="valid", normalization="softmax", separable=True, dynamic_bias="before"),
        (6, 7, 2),
    ),
    "depthwise, generator": LayerCase(
        DynamicDepthwiseConv2D,
        dict(kernel_size=3),
        ((6, 7, 3),),
        lambda **options: dict(generator=_pooled(27, **options)),
    ),
    "norm, spatial": LayerCase(FilterNorm, dict(kind="spatial"), ((5, 6, 18),)),
    "norm, spatial, options": LayerCase(
        FilterNorm,
        dict(kind="spatial", kernel_size=(1, 9), gain="linear", scale="filter", center="filter", epsilon=0),
        ((5, 6, 18),),
    ),
    "norm, channel": LayerCase(
        FilterNorm, dict(kind="channel", kernel_size=3, gain=0.5, center="tap"), ((3, 3, 5),), unknown_sizes=False
    ),
    "ddf": LayerCase(DDF2D, dict(), ((6, 7, 8),)),
    "ddf, options": LayerCase(
        DDF2D,
        dict(
            kernel_size=(3, 5),
            strides=(1, 2),
            dilation_rate=2,
            squeeze_ratio=0.5,
            heads=2,
            combine="add",
            spatial_norm="batch",
            channel_norm="sigmoid",
            activation="relu",
            use_bias=True,
            generator_initializer="he_normal",
            generator_bias_initializer="zeros",
            bias_initializer="ones",
            generator_regularizer="l2",
            bias_regularizer="l1",
        ),
        ((7, 8, 4),),
    ),
    "ddf, spatial": LayerCase(
        DDF2D,
        dict(branches="spatial"),
        ((6, 7, 8),),
        lambda **_: dict(spatial_norm=FilterNorm("spatial", 3, gain=0.7, scale="tap", center="filter")),
    ),
    "ddf, channel": LayerCase(
        DDF2D,
        dict(branches="channel", strides=2),
        ((6, 7, 8),),
        lambda **_: dict(channel_norm=keras.layers.LayerNormalization()),
    ),
    "ddf up": LayerCase(DDFUp2D, dict(), ((4, 5, 6),)),
    "ddf up, options": LayerCase(
        DDFUp2D,
        dict(
            scale_factor=3,
            kernel_size=(3, 5),
            squeeze_ratio=0.5,
            heads=2,
            combine="add",
            guide_size="output",
            activation="tanh",
            use_bias=True,
            generator_initializer="he_normal",
            generator_bias_initializer="zeros",
            bias_initializer="ones",
            generator_regularizer="l2",
            bias_regularizer="l1",
        ),
        ((3, 4, 6), (9, 12, 5)),
        lambda **_: dict(
            spatial_norm=FilterNorm("spatial", (3, 5), gain="relu"),
            channel_norm=FilterNorm("channel", (3, 5), scale="filter"),
        ),
    ),
    "ddf up, small guide": LayerCase(
        DDFUp2D,
        dict(squeeze_ratio=1, guide_size="input", spatial_norm=None, channel_norm="batch"),
        ((4, 5, 6), (4, 5, 3)),
    ),
    "repository": LayerCase(FilterRepository, dict(filters=3, kernel_size=3, channels=2), ((9,),)),
    "repository, options": LayerCase(
        FilterRepository,
        dict(
            filters=3,
            kernel_size=(3, 5),
            channels=2,
            base_filters=7,
            repository_initializer="he_normal",
            repository_regularizer="l2",
            repository_constraint="unit_norm",
        ),
        ((7, 3),),
    ),
    "repository conv": LayerCase(RepositoryConv2D, dict(filters=3, kernel_size=3), ((5, 6, 2), (7,))),
    "repository conv, options": LayerCase(
        RepositoryConv2D,
        dict(
            filters=3,
            kernel_size=(3, 5),
            base_filters=7,
            strides=(1, 2),
            padding="valid",
            dilation_rate=2,
            algorithm="per_sample",
            activation="relu",
            use_bias=True,
            dynamic_bias="after",
            repository_initializer="he_normal",
            coefficients_initializer="he_normal",
            coefficients_bias_initializer="ones",
            bias_initializer="ones",
            repository_regularizer="l2",
            coefficients_regularizer="l1",
            bias_regularizer="l2",
            repository_constraint="unit_norm",
        ),
        ((9, 12, 2), (7,)),
    ),
    "untied bias": LayerCase(
        UntiedBias,
        dict(bias_initializer="ones", bias_regularizer="l2", bias_constraint="non_neg"),
        ((3, 4, 2),),
        unknown_sizes=False,
    ),
    "upsampling conv": LayerCase(UpsamplingConv2D, dict(filters=3, kernel_size=5), ((6, 5, 4),)),
}
CLASSES = list(dict.fromkeys(case.layer for case in CASES.values()))
