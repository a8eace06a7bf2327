# SPDX-License-Identifier: Apache-2.0
"""The compiled family: one function that calls any of its members."""

import tensorflow as tf

from keras_dynfilter.ops.backends import library

# (weight, the operand by which <grad, outputs> is differentiated) -> raw op. The forward op is the derivative by grad.
_RAW = {
    ("spatial", "grad"): "local_filter2d",
    ("spatial", "inputs"): "local_filter2d_grad_inputs",
    ("spatial", "spatial"): "local_filter2d_grad_filters",
    ("softmax", "grad"): "softmax_local_filter2d",
    ("softmax", "inputs"): "softmax_local_filter2d_grad_inputs",
    ("softmax", "spatial"): "softmax_local_filter2d_grad_filters",
    ("channel", "grad"): "dynamic_depthwise_conv2d",
    ("channel", "inputs"): "dynamic_depthwise_conv2d_grad_inputs",
    ("channel", "channel"): "dynamic_depthwise_conv2d_grad_filters",
    ("mul", "grad"): "ddf2d",
    ("mul", "inputs"): "ddf2d_grad_inputs",
    ("mul", "channel"): "ddf2d_grad_channel_filters",
    ("mul", "spatial"): "ddf2d_grad_spatial_filters",
    ("add", "grad"): "ddf2d",
    ("add", "inputs"): "ddf2d_grad_inputs",
}


def filter2d(inputs, spatial, channel, weight, geometry):
    """As `_composite.filter2d`, on the compiled ops."""
    attributes = dict(padding=geometry.padding)
    for name, values in (("kernel", geometry.kernel_size), ("stride", geometry.strides)):
        attributes[f"{name}_h"], attributes[f"{name}_w"] = values
    attributes["dilation_h"], attributes["dilation_w"] = geometry.dilation_rate
    if weight != "channel":
        attributes["heads"] = geometry.heads
    operands = {"inputs": inputs, "spatial": spatial, "channel": channel}
    return member(weight, "grad", {k: v for k, v in operands.items() if v is not None}, attributes)


def member(weight, by, operands, attributes):
    """The derivative of `<grad, outputs>` by the operand `by`, a function of the others.

    Args:
        weight: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
        by: `"grad"` (the forward op), `"inputs"`, `"spatial"` or `"channel"`.
        operands: The other tensors by name, and `input_size` where `by` is `"inputs"`.
        attributes: Attributes of the raw op, but for `combine`.
    """
    attributes = dict(attributes)
    if weight == "add" and by in ("spatial", "channel"):
        # S + C: the derivative by one term does not know the other.
        weight = by
        operands = {name: operands[name] for name in ("inputs", "grad")}
    if weight in ("mul", "add"):
        names = {"spatial": "spatial_filters", "channel": "channel_filters"}
        if by in ("grad", "inputs"):
            attributes["combine"] = weight
    else:
        names = {"spatial": "filters", "channel": "filters"}
    if weight == "channel":
        attributes.pop("heads", None)
    elif "heads" not in attributes:
        attributes["heads"] = 1
    raw = getattr(library.load().ops, f"keras_dynfilter_{_RAW[weight, by]}")
    return raw(**{names.get(name, name): value for name, value in operands.items()}, **attributes)


def input_size(inputs):
    """Height and width of channels-last images, as the ops take it."""
    return tf.shape(inputs, out_type=tf.int64)[1:3]
