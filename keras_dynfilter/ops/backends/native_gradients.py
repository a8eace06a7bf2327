# SPDX-License-Identifier: Apache-2.0
"""Gradients of the compiled ops, of every order.

`T = <grad, outputs>` is linear in each of its operands. A raw op is the derivative of T by one operand, as a function
of the others; so the gradient of that op by another operand, for a cotangent y, is again a derivative of T, with y in
the place of the operand the op was derived by. One function serves all ops. A softmax is linear in all but its logits;
there the second derivative is composed from the family.
"""

import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import composite, raw_ops

_ATTRIBUTES = ("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "padding")


def _register(name, weight, by, operands):
    """Registers the gradient of the raw op `name`, whose inputs are `operands` in order."""

    def gradient(op, cotangent):
        attributes = {key: op.get_attr(key) for key in _ATTRIBUTES}
        attributes["padding"] = tf.compat.as_str(attributes["padding"])
        if weight != "channel":
            attributes["heads"] = op.get_attr("heads")
        given = dict(zip(operands, op.inputs))
        kind = weight
        if kind == "mul" and by in ("grad", "inputs"):
            kind = tf.compat.as_str(op.get_attr("combine"))
        if kind == "softmax":
            gradients = _softmax_gradients(by, given, cotangent, attributes)
        else:
            gradients = _multilinear_gradients(kind, by, given, cotangent, attributes)
        return [gradients.get(name) for name in operands]

    tf.RegisterGradient(name)(gradient)


def _multilinear_gradients(weight, by, given, cotangent, attributes):
    full = {name: value for name, value in given.items() if name != "input_size"}
    full[by] = cotangent
    gradients = {}
    for name in given:
        if name == "input_size":
            continue
        others = {key: value for key, value in full.items() if key != name}
        gradients[name] = _derivative(weight, name, others, given, attributes)
    return gradients


def _derivative(weight, by, operands, given, attributes):
    if by == "inputs":
        operands = dict(operands, input_size=raw_ops.input_size(given["inputs"]))
        operands.pop("inputs", None)
    return raw_ops.member(weight, by, operands, attributes)


def _softmax_gradients(by, given, y, attributes):
    logits = given["spatial"]
    if by == "grad":
        inputs = given["inputs"]
        return {
            "inputs": _derivative("softmax", "inputs", {"spatial": logits, "grad": y}, given, attributes),
            "spatial": raw_ops.member(
                "softmax", "spatial", {"inputs": inputs, "spatial": logits, "grad": y}, attributes
            ),
        }
    grad = given["grad"]
    if by == "inputs":  # <y, Gx(p, grad)> = <grad, F(y, p)>
        return {
            "grad": raw_ops.member("softmax", "grad", {"inputs": y, "spatial": logits}, attributes),
            "spatial": raw_ops.member("softmax", "spatial", {"inputs": y, "spatial": logits, "grad": grad}, attributes),
        }
    # The op is p * (q - <p, q>) with q = GS(inputs, grad), linear in inputs and grad.
    inputs = given["inputs"]
    shape = tf.shape(logits)
    split = tf.concat([shape[:3], [attributes["heads"], attributes["kernel_h"] * attributes["kernel_w"]]], axis=0)
    p = tf.nn.softmax(tf.reshape(logits, split))
    y = tf.reshape(y, split)
    q = tf.reshape(raw_ops.member("spatial", "spatial", {"inputs": inputs, "grad": grad}, attributes), split)
    py, pq = _over_taps(p * y), _over_taps(p * q)
    by_q = tf.reshape(p * (y - py), shape)
    by_p = y * (q - pq) - q * py
    return {
        "inputs": _derivative("spatial", "inputs", {"spatial": by_q, "grad": grad}, given, attributes),
        "grad": raw_ops.member("spatial", "grad", {"inputs": inputs, "spatial": by_q}, attributes),
        "spatial": tf.reshape(p * (by_p - _over_taps(p * by_p)), shape),
    }


def _over_taps(value):
    return tf.reduce_sum(value, axis=-1, keepdims=True)


for _name, _weight, _filters in (
    ("LocalFilter2D", "spatial", ["spatial"]),
    ("SoftmaxLocalFilter2D", "softmax", ["spatial"]),
    ("DynamicDepthwiseConv2D", "channel", ["channel"]),
    ("DDF2D", "mul", ["channel", "spatial"]),
):
    _register(f"KerasDynfilter>{_name}", _weight, "grad", ["inputs", *_filters])
    _register(f"KerasDynfilter>{_name}GradInputs", _weight, "inputs", ["input_size", *_filters, "grad"])
_register("KerasDynfilter>LocalFilter2DGradFilters", "spatial", "spatial", ["inputs", "grad"])
_register("KerasDynfilter>SoftmaxLocalFilter2DGradFilters", "softmax", "spatial", ["inputs", "spatial", "grad"])
_register("KerasDynfilter>DynamicDepthwiseConv2DGradFilters", "channel", "channel", ["inputs", "grad"])
_register("KerasDynfilter>DDF2DGradChannelFilters", "mul", "channel", ["inputs", "spatial", "grad"])
_register("KerasDynfilter>DDF2DGradSpatialFilters", "mul", "spatial", ["inputs", "channel", "grad"])


@tf.RegisterGradient("KerasDynfilter>ProjectAndPool")
def _project_and_pool_gradients(op, by_projected, by_means):
    """Composed, and so are those of higher order."""
    inputs, kernel, _ = op.inputs
    batch, height, width, channels = composite.sizes(inputs)
    pixels = height * width
    outputs = composite.sizes(kernel)[1]
    rows = tf.reshape(by_projected, [batch * pixels, outputs])
    by_kernel = tf.matmul(tf.reshape(inputs, [batch * pixels, channels]), rows, transpose_a=True)
    # One product makes the sum of both gradients by the inputs: that by a mean is the same at every position.
    wide = checks.accumulation(inputs.dtype)
    by_means = tf.cast(tf.cast(by_means, wide) / tf.cast(pixels, wide), by_means.dtype)
    ones = tf.ones([batch, pixels, 1], by_projected.dtype)
    by_values = tf.concat([tf.reshape(by_projected, [batch, pixels, outputs]), ones], axis=-1)
    columns = tf.broadcast_to(tf.transpose(kernel), [batch, outputs, channels])
    by_inputs = tf.matmul(by_values, tf.concat([columns, by_means[:, None]], axis=1))
    by_bias = tf.cast(tf.reduce_sum(tf.cast(rows, wide), axis=0), rows.dtype)
    return tf.reshape(by_inputs, tf.shape(inputs)), by_kernel, by_bias
