# SPDX-License-Identifier: Apache-2.0
"""Builds the variants of the ablations of DDF: a small residual network with other layers for its 3x3 convolutions.

Papers: https://arxiv.org/abs/2104.14107 (Zhou et al., 2021), https://arxiv.org/abs/1904.04971 (CondConv: Yang et al.,
2019).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_dynfilter import inspection, models
from keras_dynfilter.models.baselines.resnet import bottleneck_block, conv2d, plain_convolution
from keras_dynfilter.ops import dynamic_conv2d, dynamic_depthwise_conv2d
from keras_dynfilter.ops.checks import positive
from keras_dynfilter.ops.geometry import Geometry

EXPERTS = 8


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
class CondConv2D(keras.layers.Layer):
    """Convolves with a weighted sum of expert kernels. The weights depend on the image.

        weights = sigmoid(Dense(mean over the positions)), filters = sum over the experts of weight * kernel

    Args:
        filters: Positive integer, number of output channels; None for a depth-wise convolution.
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair. Padding is symmetric, outputs have `ceil(size / strides)` positions.
        experts: Positive integer, number of kernels.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, out_height, out_width, filters)`

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [CondConv: Conditionally Parameterized Convolutions for Efficient Inference](https://arxiv.org/abs/1904.04971)
        (Yang et al., NeurIPS 2019), section 3.
    """

    def __init__(self, filters, kernel_size=3, strides=1, experts=EXPERTS, **kwargs):
        super().__init__(**kwargs)
        self.filters = None if filters is None else positive(filters, "filters")
        self.geometry = Geometry.make(kernel_size, strides)
        self.kernel_size, self.strides = self.geometry.kernel_size, self.geometry.strides
        self.experts = positive(experts, "experts")
        self.routing = keras.layers.Dense(experts, "sigmoid", name="routing", dtype=self.dtype_policy)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.routing.build((None, channels))
        self.shape = (*self.kernel_size, channels)
        if self.filters is not None:
            self.shape += (self.filters,)
        fan_out = math.prod(self.kernel_size) * (self.filters or 1)
        self.kernels = self.add_weight(
            name="kernels",
            shape=(self.experts, math.prod(self.shape)),
            initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2 / fan_out)),
        )
        super().build(input_shape)

    def call(self, inputs):
        weights = self.routing(tf.reduce_mean(inputs, axis=(1, 2)))
        filters = tf.reshape(tf.matmul(weights, tf.cast(self.kernels, weights.dtype)), [-1, *self.shape])
        op = dynamic_depthwise_conv2d if self.filters is None else dynamic_conv2d
        return op(inputs, filters, strides=self.strides)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.geometry.output_shape(input_shape), self.filters or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "experts": self.experts,
        }


def condconv_flops(layer, inputs, output):
    """Counts the operations of a `CondConv2D` as `inspection.count_flops` does: routing, mixing, convolution."""
    *positions, channels = inputs[0]
    routing = math.prod(positions) * channels + channels * layer.experts
    return routing + layer.kernels.shape[0] * layer.kernels.shape[1] + math.prod(layer.shape) * math.prod(output[1:3])


def condconv(inputs, channels, strides, dilation_rate, name, depthwise=False):
    """Applies a `CondConv2D` with kernels of 3x3."""
    return CondConv2D(None if depthwise else channels, 3, strides, name=name)(inputs)


def depthwise(inputs, channels, strides, dilation_rate, name):
    """Applies a depth-wise 3x3 convolution with symmetric padding."""
    inputs = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(inputs)
    initializer = keras.initializers.RandomNormal(stddev=math.sqrt(2 / 9))
    return keras.layers.DepthwiseConv2D(
        3, strides, use_bias=False, depthwise_initializer=initializer, data_format="channels_last", name=name
    )(inputs)


@dataclasses.dataclass(frozen=True)
class Variant:
    """Describes the layers that replace the 3x3 convolutions.

    Attributes:
        title: Title in tables.
        convolution: Function that makes a layer, as for `models.resnet`.
        paper: Top-1 accuracy of the paper with ResNet-50 on ImageNet, in percent; None if the paper has none.
    """

    title: str
    convolution: Callable
    paper: float | None = None


VARIANTS = {
    "base": Variant("3x3 convolution", plain_convolution, 77.2),
    "depthwise": Variant("depth-wise convolution", depthwise),
    "spatial": Variant("DDF, spatial filters only", models.ddf_convolution(branches="spatial"), 74.4),
    "channel": Variant("DDF, channel filters only", models.ddf_convolution(branches="channel"), 78.7),
    "ddf": Variant("DDF", models.ddf_convolution(), 79.1),
    "batch_norm": Variant(
        "DDF, batch normalisation", models.ddf_convolution(spatial_norm="batch", channel_norm="batch"), 76.0
    ),
    "sigmoid": Variant("DDF, sigmoid", models.ddf_convolution(spatial_norm="sigmoid", channel_norm="sigmoid"), 78.2),
    "no_norm": Variant("DDF, not normalised", models.ddf_convolution(spatial_norm=None, channel_norm=None)),
    "squeeze_0.3": Variant("DDF, squeeze ratio 0.3", models.ddf_convolution(squeeze_ratio=0.3), 79.0),
    "squeeze_0.4": Variant("DDF, squeeze ratio 0.4", models.ddf_convolution(squeeze_ratio=0.4), 79.2),
    "condconv": Variant(f"CondConv, {EXPERTS} experts", condconv, 78.6),
    "depthwise_condconv": Variant(
        f"depth-wise CondConv, {EXPERTS} experts", functools.partial(condconv, depthwise=True), 78.3
    ),
}


def build(variant, image_shape=(32, 32, 3), classes=10, width=16, blocks=(2, 2, 2)):
    """Builds a residual network of bottleneck blocks for small images, with logits `[batch, classes]`.

    The stem is a 3x3 convolution and a max pooling, without which the network would take four times as long.
    """
    images = keras.Input(image_shape, name="images")
    features = conv2d(images, width, 3, name="stem")
    features = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="stem_bn")(features)
    features = keras.layers.ReLU(name="stem_relu")(features)
    features = keras.layers.MaxPooling2D(2, name="stem_pool")(features)
    for stage, count in enumerate(blocks):
        for index in range(count):
            features = bottleneck_block(
                features,
                width * 2**stage,
                2 if stage and index == 0 else 1,
                1,
                VARIANTS[variant].convolution,
                f"stage{stage + 1}_block{index + 1}",
            )
    features = keras.layers.GlobalAveragePooling2D(name="mean")(features)
    outputs = keras.layers.Dense(classes, name="predictions")(features)
    return keras.Model(images, outputs, name=variant.replace(".", "_"))


def flops(network):
    """Counts the operations for one image."""
    return inspection.count_flops(network, rules={CondConv2D: condconv_flops})
