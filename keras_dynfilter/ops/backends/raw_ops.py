# SPDX-License-Identifier: Apache-2.0
"""Holds the table of the compiled filter ops, and calls them.

All filter ops are derivatives of one scalar function of four operands,

    T = sum_{n,i,j,c} upstream[n,i,j,c] * outputs[n,i,j,c]

where the *kind* of the filter defines how `outputs` depends on the operands `inputs`, `spatial` and `channel`. Every
raw op computes the derivative of T *with respect to* (`wrt`) one operand. The forward op is the derivative with respect
to the fourth operand, `upstream`, and is written `wrt=None`.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_dynfilter.ops.backends import library
from keras_dynfilter.ops.geometry import Geometry

PREFIX = "KerasDynfilter>"
WINDOW_ATTRIBUTES = ("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "padding")


@dataclasses.dataclass(frozen=True)
class RawOp:
    """Describes a compiled op.

    Attributes:
        name: Name of the op without the prefix `KerasDynfilter>`.
        function: Name of its Python function in the loaded library, without the prefix `keras_dynfilter_`.
        kinds: The kinds of filter for which it is used.
        wrt: The operand with respect to which it is the derivative, or None for the forward op.
        inputs: Operand -> name of the op's input, in the op's order. The operands are `"inputs"`, `"spatial"`,
            `"channel"` and `"upstream"`. `"input_size"` stands for the height and width of `"inputs"`.
        attributes: Names of its attributes, except the dtype `T`.
    """

    name: str
    function: str
    kinds: tuple[str, ...]
    wrt: str | None
    inputs: dict[str, str]
    attributes: tuple[str, ...]

    @property
    def type(self) -> str:
        """Type of the op's nodes in a graph."""
        return PREFIX + self.name


_HEADS = (*WINDOW_ATTRIBUTES, "heads")
_COMBINE = (*_HEADS, "combine")
# Operand -> name of the op's input.
_INPUTS, _SIZE, _UPSTREAM = {"inputs": "inputs"}, {"input_size": "input_size"}, {"upstream": "grad"}
_SPATIAL, _CHANNEL = {"spatial": "filters"}, {"channel": "filters"}
_SPATIAL_FACTOR, _CHANNEL_FACTOR = {"spatial": "spatial_filters"}, {"channel": "channel_filters"}
# The derivative of a sum of factors ("add") with respect to one factor does not depend on the other factor. Therefore
# the op for filters that consist of this factor only computes it.
# fmt: off
RAW_OPS = (
    RawOp("LocalFilter2D", "local_filter2d", ("spatial",), None,
          _INPUTS | _SPATIAL, _HEADS),
    RawOp("LocalFilter2DGradInputs", "local_filter2d_grad_inputs", ("spatial",), "inputs",
          _SIZE | _SPATIAL | _UPSTREAM, _HEADS),
    RawOp("LocalFilter2DGradFilters", "local_filter2d_grad_filters", ("spatial", "add"), "spatial",
          _INPUTS | _UPSTREAM, _HEADS),
    RawOp("SoftmaxLocalFilter2D", "softmax_local_filter2d", ("softmax",), None,
          _INPUTS | _SPATIAL, _HEADS),
    RawOp("SoftmaxLocalFilter2DGradInputs", "softmax_local_filter2d_grad_inputs", ("softmax",), "inputs",
          _SIZE | _SPATIAL | _UPSTREAM, _HEADS),
    RawOp("SoftmaxLocalFilter2DGradFilters", "softmax_local_filter2d_grad_filters", ("softmax",), "spatial",
          _INPUTS | _SPATIAL | _UPSTREAM, _HEADS),
    RawOp("DynamicDepthwiseConv2D", "dynamic_depthwise_conv2d", ("channel",), None,
          _INPUTS | _CHANNEL, WINDOW_ATTRIBUTES),
    RawOp("DynamicDepthwiseConv2DGradInputs", "dynamic_depthwise_conv2d_grad_inputs", ("channel",), "inputs",
          _SIZE | _CHANNEL | _UPSTREAM, WINDOW_ATTRIBUTES),
    RawOp("DynamicDepthwiseConv2DGradFilters", "dynamic_depthwise_conv2d_grad_filters", ("channel", "add"), "channel",
          _INPUTS | _UPSTREAM, WINDOW_ATTRIBUTES),
    RawOp("DDF2D", "ddf2d", ("mul", "add"), None,
          _INPUTS | _CHANNEL_FACTOR | _SPATIAL_FACTOR, _COMBINE),
    RawOp("DDF2DGradInputs", "ddf2d_grad_inputs", ("mul", "add"), "inputs",
          _SIZE | _CHANNEL_FACTOR | _SPATIAL_FACTOR | _UPSTREAM, _COMBINE),
    RawOp("DDF2DGradChannelFilters", "ddf2d_grad_channel_filters", ("mul",), "channel",
          _INPUTS | _SPATIAL_FACTOR | _UPSTREAM, _HEADS),
    RawOp("DDF2DGradSpatialFilters", "ddf2d_grad_spatial_filters", ("mul",), "spatial",
          _INPUTS | _CHANNEL_FACTOR | _UPSTREAM, _HEADS),
)
# fmt: on
# (kind, wrt) -> raw op.
TABLE = {(kind, raw_op.wrt): raw_op for raw_op in RAW_OPS for kind in raw_op.kinds}


def filter2d(
    inputs: tf.Tensor, spatial: tf.Tensor | None, channel: tf.Tensor | None, kind: str, geometry: Geometry
) -> tf.Tensor:
    """Applies factored filters with the compiled ops; see `composite.filter2d` for the arguments."""
    values = (*geometry.kernel_size, *geometry.strides, *geometry.dilation_rate, geometry.padding)
    attributes = dict(zip(WINDOW_ATTRIBUTES, values), heads=geometry.heads)
    return derivative(kind, None, dict(inputs=inputs, spatial=spatial, channel=channel), attributes)


def derivative(kind: str, wrt: str | None, operands: dict[str, tf.Tensor], attributes: dict[str, Any]) -> tf.Tensor:
    """Computes the derivative of T with respect to one operand.

    Args:
        kind: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
        wrt: None (the forward op), `"inputs"`, `"spatial"` or `"channel"`.
        operands: The operands by name. Operands on which the derivative does not depend are ignored. For
            `wrt="inputs"`, the height and width of `"inputs"` are read, but not its values.
        attributes: The attributes of the window, and, unless `kind` is `"channel"`, `heads`.
    """
    raw_op = TABLE[kind, wrt]
    if wrt == "inputs":
        operands = dict(operands, input_size=_height_and_width(operands["inputs"]))
    arguments = {name: operands[operand] for operand, name in raw_op.inputs.items()}
    for name in raw_op.attributes:
        arguments[name] = kind if name == "combine" else attributes[name]
    return getattr(library.load().ops, f"keras_dynfilter_{raw_op.function}")(**arguments)


def _height_and_width(images):
    """Returns the sizes as a tensor: a constant if they are known, so that the shape of a gradient is known, too."""
    size = images.shape[1:3]
    if size.is_fully_defined():
        return tf.constant(size.as_list(), tf.int64)
    return tf.shape(images, out_type=tf.int64)[1:3]


def project_and_pool(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Projects every pixel and averages every channel with the compiled op; see `pixel_projection`."""
    projected, means = library.load().ops.keras_dynfilter_project_and_pool(inputs=inputs, kernel=kernel, bias=bias)
    return projected, means
