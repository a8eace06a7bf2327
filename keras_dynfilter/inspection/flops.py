# SPDX-License-Identifier: Apache-2.0
"""What a model costs, counted as in "Decoupled Dynamic Filter Networks" (https://arxiv.org/abs/2104.14107)."""

import math

import keras

from keras_dynfilter.layers import DDF2D, DDFUp2D, FilterNorm, RepositoryConv2D, UntiedBias
from keras_dynfilter.layers.upsampling_conv2d import UpConv2D
from keras_dynfilter.models.model_graph import Tensor, graph


def count_flops(model, input_shape=None, rules=None):
    """The number of operations for one sample, where a multiplication and an addition together are one.

    The rules give every digit that the paper prints for its networks. Other layers are counted by the same principle:

    | layer | operations |
    | --- | --- |
    | convolutions, `Dense` | one per weight and position that it is used at |
    | `DDF2D`, `DDFUp2D`, `RepositoryConv2D`, the enlarging convolution of `repository_mnist` | see below |
    | normalisation, `Rescaling` | one per value |
    | `Add` and the like | one per value and operand after the first |
    | average pooling | one per value that is averaged |
    | biases, activations, maximum pooling, padding, upsampling, reshaping, dropout | none |

    With `n` output positions, `c` channels, `t` taps, `g` heads and a bottleneck of `m`, `DDF2D` has
    `n*c + c*m + m*c*t + c*t` for the channel filters, `n*c*g*t + n*g*t` for the spatial filters, and `2*n*c*t` to
    combine and apply them; or `n*c*t` where there is only one kind. (With strides, the mean takes all positions, but
    the paper counts those of the output.)

    A branch of `DDFUp2D` has `9*n*c + n*c*g*t` for the spatial filters, or `n*d*g*t` with a guide of `d` channels, and
    `n*c*t` to apply them, where `n` positions are those of the inputs. Normalisation, combination and channel filters
    do not count there: so counted, the upsampling of the detector in the paper has the 0.58B that it prints.

    `RepositoryConv2D` of `l` features, `b` base filters and `f` filters of `d` values has `l*b*f` for the coefficients,
    and `l*f` for a dynamic bias; then `n*m*(d + f)` on its shared path, with `m` the lesser of `b` and `d`, and `b*d*f`
    more if `b` is above `d`; or `d*f*(b + n)` on the direct one. (With strides and dilation at once, the shared path
    convolves at all positions; those of the output are counted.) The enlarging convolution of 5x5 has `9*c` per value.

    Args:
        model: Functional or sequential model, built. Models inside it are counted, layers as often as they are called.
        input_shape: `(height, width, channels)` where the model leaves sizes open; for several inputs a list of shapes,
            in the order of `model.inputs`. None: the model's own.
        rules: Dict of layer class to a function `(layer, input shapes, output shape)`, shapes of a batch of 1, that
            returns the operations of one call, for layers that are not in the table. Goes before the table.

    Returns:
        The number, as an integer.

    Raises:
        ValueError: `model` is neither functional nor sequential, has a layer that there is no rule for, or has open
            sizes.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(16, 3, padding="same")])
    >>> count_flops(model)  # 9 taps, 4 channels in, 16 out, 64 positions
    36864
    """
    graph(model)  # refuses other models
    shapes = [tuple(tensor.shape)[1:] for tensor in model.inputs]
    if input_shape is not None:
        several = isinstance(input_shape, list)
        shapes = [tuple(shape) for shape in (input_shape if several else [input_shape])]
    if any(size is None for shape in shapes for size in shape):
        raise ValueError(
            f"Expected `input_shape` to give the sizes that the model leaves open. Received: {input_shape=}"
        )
    operations, _ = _count(model, [(1, *shape) for shape in shapes], {**RULES, **(rules or {})})
    return operations


def count_parameters(model):
    """The number of trained parameters of a built model, which is what papers print.

    Keras's `count_params` adds what is not trained, such as the moving averages of batch normalisation.
    """
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _count(model, shapes, rules):
    """The operations of `model` for inputs of `shapes`, and the shapes of its outputs."""
    calls, layers = graph(model), {layer.name: layer for layer in model.layers}
    if len(shapes) != len(calls.inputs):
        expected = f"Expected `input_shape` to have a shape for each of the {len(calls.inputs)} inputs"
        raise ValueError(f"{expected}. Received: {len(shapes)} shapes")
    known, total = dict(zip(calls.inputs, shapes)), 0
    for call in calls.calls:
        layer = layers.get(call.layer)
        if layer is None:
            expected = "Expected all operations of the model to be layers, such as keras.layers.Add for `+`"
            raise ValueError(f"{expected}. Received: an operation {call.layer!r} in model {model.name!r}")
        given = [known[source] for source in call.sources]
        rule = next((rules[kind] for kind in type(layer).__mro__ if kind in rules), None)
        if rule is None and isinstance(layer, keras.Model):
            operations, outputs = _count(layer, given, rules)
        elif rule is None:
            expected = f"Expected a rule for every layer; pass `rules={{{type(layer).__name__}: ...}}` for this one"
            raise ValueError(f"{expected}. Received: layer {layer.name!r} of class {type(layer).__name__}")
        else:
            outputs = _shapes(layer.compute_output_shape(given[0] if len(given) == 1 else given))
            operations = rule(layer, given, outputs[0])
        total += operations
        known.update((Tensor(call.layer, call.number, index), shape) for index, shape in enumerate(outputs))
    return total, [known[tensor] for tensor in calls.outputs]


def _shapes(shape):
    """The shapes of all outputs of a layer as tuples, from what `compute_output_shape` returns."""
    shape = list(shape)
    return [tuple(shape)] if not shape or shape[0] is None or isinstance(shape[0], int) else [tuple(s) for s in shape]


def _channels(layer, shape):
    return shape[-1] if layer.data_format == "channels_last" else shape[1]


def _convolution(layer, inputs, output):
    return math.prod(layer.kernel.shape) * math.prod(output) // layer.filters


def _transposed(layer, inputs, output):
    return math.prod(layer.kernel.shape) * math.prod(inputs[0]) // _channels(layer, inputs[0])


def _depthwise(layer, inputs, output):
    return math.prod(layer.kernel_size) * math.prod(output)


def _separable(layer, inputs, output):
    filtered = _channels(layer, inputs[0]) * layer.depth_multiplier
    return math.prod(output) // layer.filters * filtered * (math.prod(layer.kernel_size) + layer.filters)


def _dense(layer, inputs, output):
    return inputs[0][-1] * math.prod(output)


def _ddf(layer, inputs, output):
    channels, taps, heads = _channels(layer, output), math.prod(layer.kernel_size), layer.heads
    values = math.prod(output)
    positions = values // channels
    normalized = layer.normalization in ("filter", "batch")
    operations = values * taps * (2 if layer.branches == "both" else 1)
    if layer.branches != "channel":
        operations += values * heads * taps + normalized * positions * heads * taps
    if layer.branches != "spatial":
        squeezed = layer.channel_branch.squeeze.units
        operations += values + channels * squeezed + squeezed * channels * taps + normalized * channels * taps
    return operations


def _ddf_up(layer, inputs, output):
    images, *guide = inputs
    taps, values = math.prod(layer.kernel_size), layer.branches * math.prod(images)
    positions = values // _channels(layer, images)
    if guide:
        depthwise, generating = 0, positions * _channels(layer, guide[0])
    else:
        depthwise, generating = 9 * values, values
    return depthwise + generating * layer.heads * taps + values * taps


def _repository(layer, inputs, output):
    _, features = inputs[1]
    channels, positions = _channels(layer, inputs[0]), math.prod(output) // layer.filters
    depth, base_filters, filters = layer.geometry.taps * channels, layer.base_filters, layer.filters
    operations = features * filters * (base_filters + bool(layer.dynamic_bias))
    mixing = depth * base_filters * filters
    if layer.used_path(inputs[0]) == "direct":
        return operations + mixing + positions * depth * filters
    maps = min(base_filters, depth)
    return operations + positions * maps * (depth + filters) + (mixing if maps < base_filters else 0)


def _up(layer, inputs, output):
    window = (layer.kernel_size // 2 + 1) // 2 * 2 + 1  # on the small map
    return window**2 * inputs[0][-1] * math.prod(output)


def _per_value(layer, inputs, output):
    return math.prod(output)


def _per_operand(layer, inputs, output):
    return (len(inputs) - 1) * math.prod(output)


def _mean(layer, inputs, output):
    return math.prod(inputs[0])


def _window_mean(layer, inputs, output):
    return math.prod(layer.pool_size) * math.prod(output)


def _none(layer, inputs, output):
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
    UpConv2D: _up,
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
    keras.layers.GlobalAveragePooling2D: _mean,
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
