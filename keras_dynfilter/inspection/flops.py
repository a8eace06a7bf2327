# SPDX-License-Identifier: Apache-2.0
"""Counts the operations and the parameters of a model as "Decoupled Dynamic Filter Networks" does.

TensorFlow's profiler is not used: it counts the ops of one implementation, counts a multiplication and an addition as
two operations, and supports neither compiled ops nor the paper's rules.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_dynfilter.inspection.flop_rules import RULES
from keras_dynfilter.models.model_graph import Tensor, graph
from keras_dynfilter.ops.checks import integer

Shape = tuple[int | None, ...]


def count_flops(
    model: keras.Model,
    input_shape: Shape | list[Shape] | None = None,
    rules: Mapping[type, Callable[..., int]] | None = None,
) -> int:
    """Counts the operations of a model for one sample; a multiplication and an addition together count as one.

    The rules reproduce every digit that the paper prints for its networks. Layers that are not in the paper follow the
    same principle:

    | layer | operations |
    | --- | --- |
    | convolutions, `Dense` | one per weight and position that uses it |
    | `DDF2D`, `DDFUp2D`, `RepositoryConv2D`, the upsampling convolution of `repository_mnist` | see below |
    | normalisation, `Rescaling` | one per value |
    | `Add`, `Multiply` and other merges | one per value and operand after the first |
    | average pooling | one per value that is averaged |
    | biases, activations, maximum pooling, padding, upsampling, reshaping, dropout | none |

    `DDF2D`, with `n` output positions, `c` channels, `t` taps, `g` heads and a bottleneck of `m` values:

    * channel filters: `n*c + c*m + m*c*t + c*t`. With strides, the mean covers all input positions, but the paper
      counts only the output positions.
    * spatial filters: `n*c*g*t + n*g*t`.
    * combining and applying both: `2*n*c*t`; with only channel or only spatial filters, `n*c*t`.

    The terms `c*t` and `n*g*t` are the normalisation; they are left out for `"sigmoid"` and None.

    `DDFUp2D`, for each of its `scale_factor**2` phases, with `n` input positions: `9*n*c + n*c*g*t` for the spatial
    filters, or `n*d*g*t` with a guide of `d` channels; and `n*c*t` for applying them. Normalisation, combination and
    channel filters do not count. With this rule, the upsampling of the paper's detector has 0.58B operations, as the
    paper prints.

    `RepositoryConv2D`, with `l` features, `b` base filters and `f` filters of `d` values:

    * coefficients: `l*b*f`; a dynamic bias: `l*f`.
    * `algorithm="shared"`: `n*m*(d + f)`, where `m` is the minimum of `b` and `d`, plus `b*d*f` if `b` is above `d`.
      With strides and dilation at once, this algorithm convolves at all positions; only output positions count.
    * `algorithm="per_sample"`: `d*f*(b + n)`.

    The upsampling convolution has `9*c` operations per output value for a 5x5 window.

    Args:
        model: Built functional or sequential model. Nested models are counted as well. A layer counts once per call.
        input_shape: `(height, width, channels)` for a model with unknown sizes; a list of shapes for several inputs, in
            the order of `model.inputs`. None: the shapes of the model.
        rules: Functions by class of layer, for layers that are not in the table or that need another rule. A function
            `(layer, input_shapes, output_shape)` returns the operations of one call; the shapes have a batch size of 1.

    Returns:
        The number of operations.

    Raises:
        ValueError: `model` is not built, or is neither functional nor sequential; there is no rule for one of its
            layers; a size is unknown; or `input_shape` does not suit the inputs of the model.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(16, 3, padding="same")])
    >>> count_flops(model)  # 9 taps, 4 channels in, 16 out, 64 positions
    36864

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), tables 3
        to 6.
    """
    graph(model)  # raises for other models
    shapes = _input_shapes(model, input_shape)
    operations, _ = _count(model, [(1, *shape) for shape in shapes], {**RULES, **(rules or {})})
    return operations


def count_parameters(model: keras.Model) -> int:
    """Counts the trainable parameters of a built model, as papers do.

    Keras's `count_params` includes weights that are not trained, such as the moving averages of batch normalisation.
    """
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _input_shapes(model: keras.Model, input_shape: Shape | list[Shape] | None) -> list[Shape]:
    """Returns the shape of one sample for each input of the model.

    Raises:
        ValueError: A size is unknown, or the shapes do not suit the model.
    """
    of_model = [tuple(tensor.shape)[1:] for tensor in model.inputs]
    shapes = of_model
    if input_shape is not None:
        try:
            shapes = [tuple(shape) for shape in (input_shape if isinstance(input_shape, list) else [input_shape])]
        except TypeError as error:
            raise ValueError(
                "Expected `input_shape` to be (height, width, channels), or a list of such tuples. "
                f"Received: {input_shape=}"
            ) from error
    sizes = [size for shape in shapes for size in shape]
    if any(size is None for size in sizes):
        raise ValueError(
            f"Expected `input_shape` to give the sizes that the model leaves open. Received: {input_shape=}"
        )
    if not all(integer(size) and size > 0 for size in sizes):
        raise ValueError(f"Expected `input_shape` to have positive integers as sizes. Received: {input_shape=}")
    for shape, expected in zip(shapes, of_model):
        if len(shape) != len(expected) or any(size not in (None, other) for size, other in zip(expected, shape)):
            raise ValueError(
                f"Expected `input_shape` to suit the inputs of the model, {', '.join(map(str, of_model))}. "
                f"Received: {input_shape=}"
            )
    return shapes


def _count(model, input_shapes, rules):
    """Returns the operations of `model` and the shapes of its outputs."""
    structure, layers = graph(model), {layer.name: layer for layer in model.layers}
    if len(input_shapes) != len(structure.inputs):
        expected = f"Expected `input_shape` to have a shape for each of the {len(structure.inputs)} inputs"
        raise ValueError(f"{expected}. Received: {len(input_shapes)} shapes")
    shapes, total = dict(zip(structure.inputs, input_shapes)), 0
    for call in structure.calls:
        layer = layers.get(call.layer)
        if layer is None:
            expected = "Expected all operations of the model to be layers, such as keras.layers.Add for `+`"
            raise ValueError(f"{expected}. Received: an operation {call.layer!r} in model {model.name!r}")
        operations, outputs = _count_call(layer, [shapes[source] for source in call.sources], rules)
        total += operations
        shapes.update((Tensor(call.layer, call.number, index), shape) for index, shape in enumerate(outputs))
    return total, [shapes[tensor] for tensor in structure.outputs]


def _count_call(layer, input_shapes, rules):
    """Returns the operations of one call of `layer` and the shapes of its outputs."""
    rule = next((rules[base] for base in type(layer).__mro__ if base in rules), None)
    if rule is None and isinstance(layer, keras.Model):
        return _count(layer, input_shapes, rules)
    if rule is None:
        expected = f"Expected a rule for every layer; pass `rules={{{type(layer).__name__}: ...}}` for this one"
        raise ValueError(f"{expected}. Received: layer {layer.name!r} of class {type(layer).__name__}")
    outputs = _list_of_shapes(layer.compute_output_shape(input_shapes[0] if len(input_shapes) == 1 else input_shapes))
    return rule(layer, input_shapes, outputs[0]), outputs


def _list_of_shapes(shape: Sequence) -> list[Shape]:
    """Converts the result of `compute_output_shape`, one shape or several shapes, to a list of tuples."""
    shape = list(shape)
    return [tuple(shape)] if not shape or shape[0] is None or isinstance(shape[0], int) else [tuple(s) for s in shape]
