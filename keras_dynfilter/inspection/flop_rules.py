# SPDX-License-Identifier: Apache-2.0
"""Rules that count the multiply-adds of one call of a layer, for each class of layer that `count_flops` supports.

A rule is a function of the layer, the shapes of its inputs and the shape of its output, for a batch of one sample.
"""

import math

import keras

from keras_dynfilter.layers import DDF2D, DDFUp2D, FilterNorm, RepositoryConv2D, UntiedBias
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D


def _channels(layer, shape):
    return shape[-1] if layer.data_format == "channels_last" else shape[1]


def _convolution(layer, input_shapes, output_shape):
    return math.prod(layer.kernel.shape) * math.prod(output_shape) // layer.filters


def _transposed(layer, input_shapes, output_shape):
    return math.prod(layer.kernel.shape) * math.prod(input_shapes[0]) // _channels(layer, input_shapes[0])


def _depthwise(layer, input_shapes, output_shape):
    return math.prod(layer.kernel_size) * math.prod(output_shape)


def _separable(layer, input_shapes, output_shape):
    filtered = _channels(layer, input_shapes[0]) * layer.depth_multiplier
    return math.prod(output_shape) // layer.filters * filtered * (math.prod(layer.kernel_size) + layer.filters)


def _dense(layer, input_shapes, output_shape):
    return input_shapes[0][-1] * math.prod(output_shape)


def _ddf(layer, input_shapes, output_shape):
    # The docstring of `count_flops` lists the terms.
    channels, taps, heads = _channels(layer, output_shape), math.prod(layer.kernel_size), layer.heads
    values = math.prod(output_shape)
    positions = values // channels
    operations = values * taps * (2 if layer.branches == "both" else 1)
    if layer.branches != "channel":
        operations += values * heads * taps + positions * heads * taps * _normalizes(layer.generator.spatial_norm)
    if layer.branches != "spatial":
        (branch,) = layer.generator.channel_branches
        squeezed = branch.squeeze.units
        operations += values + channels * squeezed + squeezed * channels * taps
        operations += channels * taps * _normalizes(branch.norm)
    return operations


def _normalizes(norm):
    """Returns whether a layer normalises its inputs, with one operation per value."""
    return RULES.get(type(norm)) is _per_value


def _ddf_up(layer, input_shapes, output_shape):
    images, *guide = input_shapes
    taps, values = math.prod(layer.kernel_size), layer.scale_factor**2 * math.prod(images)
    positions = values // _channels(layer, images)
    if guide:
        depthwise, generating = 0, positions * _channels(layer, guide[0])
    else:
        depthwise, generating = 9 * values, values
    return depthwise + generating * layer.heads * taps + values * taps


def _repository(layer, input_shapes, output_shape):
    _, features = input_shapes[1]
    channels, positions = _channels(layer, input_shapes[0]), math.prod(output_shape) // layer.filters
    depth, base_filters, filters = layer.geometry.taps * channels, layer.base_filters, layer.filters
    operations = features * filters * (base_filters + bool(layer.dynamic_bias))
    mixing = depth * base_filters * filters
    if layer.chosen_algorithm(input_shapes[0]) == "per_sample":
        return operations + mixing + positions * depth * filters
    maps = min(base_filters, depth)
    return operations + positions * maps * (depth + filters) + (mixing if maps < base_filters else 0)


def _upsampling_convolution(layer, input_shapes, output_shape):
    window = (layer.kernel_size // 2 + 1) // 2 * 2 + 1  # rows and columns of the fused window, on the small map
    return window**2 * input_shapes[0][-1] * math.prod(output_shape)


def _per_value(layer, input_shapes, output_shape):
    return math.prod(output_shape)


def _per_operand(layer, input_shapes, output_shape):
    return (len(input_shapes) - 1) * math.prod(output_shape)


def _global_mean(layer, input_shapes, output_shape):
    return math.prod(input_shapes[0])


def _window_mean(layer, input_shapes, output_shape):
    return math.prod(layer.pool_size) * math.prod(output_shape)


def _none(layer, input_shapes, output_shape):
    return 0


RULES = {
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv2DTranspose: _transposed,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.Dense: _dense,
    DDF2D: _ddf,
    DDFUp2D: _ddf_up,
    RepositoryConv2D: _repository,
    UpsamplingConv2D: _upsampling_convolution,
    **dict.fromkeys(
        (
            FilterNorm,
            keras.layers.BatchNormalization,
            keras.layers.GroupNormalization,
            keras.layers.LayerNormalization,
            keras.layers.Normalization,
            keras.layers.Rescaling,
        ),
        _per_value,
    ),
    **dict.fromkeys(
        (
            keras.layers.Add,
            keras.layers.Average,
            keras.layers.Maximum,
            keras.layers.Minimum,
            keras.layers.Multiply,
            keras.layers.Subtract,
        ),
        _per_operand,
    ),
    keras.layers.GlobalAveragePooling2D: _global_mean,
    keras.layers.AveragePooling2D: _window_mean,
    **dict.fromkeys(
        (
            UntiedBias,
            keras.layers.Activation,
            keras.layers.Concatenate,
            keras.layers.Cropping2D,
            keras.layers.Dropout,
            keras.layers.ELU,
            keras.layers.Flatten,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.Identity,
            keras.layers.LeakyReLU,
            keras.layers.MaxPooling2D,
            keras.layers.Permute,
            keras.layers.PReLU,
            keras.layers.ReLU,
            keras.layers.Reshape,
            keras.layers.Softmax,
            keras.layers.SpatialDropout2D,
            keras.layers.UpSampling2D,
            keras.layers.ZeroPadding2D,
        ),
        _none,
    ),
}
