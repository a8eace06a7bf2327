# SPDX-License-Identifier: Apache-2.0
"""Registers the gradients of the compiled ops, of every order. TensorFlow accepts them before the ops are loaded.

The module `raw_ops` defines the scalar function T. T is linear in each of its operands (affine in the factors of a
sum), and every raw op is a derivative of T. Therefore, the gradient of a raw op is also a derivative of T, with `grad`
in place of the operand `wrt`. Here, `grad` is the gradient that TensorFlow passes to a gradient function, and
`upstream` is an operand of T. One function computes the gradients of all ops, except for softmax filters: T is not
linear in their logits, and the second derivative with respect to the logits takes several ops.
"""

import contextlib

import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import raw_ops
from keras_dynfilter.ops.backends.softmax import softmax
from keras_dynfilter.ops.layout import sizes


def _register(raw_op):
    def gradient(op, grad):
        attributes = {name: op.get_attr(name) for name in raw_op.attributes}
        attributes["padding"] = tf.compat.as_str(attributes["padding"])
        kind = tf.compat.as_str(attributes["combine"]) if "combine" in attributes else raw_op.kinds[0]
        operands = dict(zip(raw_op.inputs, op.inputs))
        compute = _softmax_gradients if kind == "softmax" else _multilinear_gradients
        by_operand = compute(kind, raw_op.wrt, operands, grad, attributes)
        return [by_operand.get(operand) for operand in raw_op.inputs]

    _register_once(raw_op.type, gradient)


def _register_once(op_type, gradient):
    # If this process has imported another copy of the package, TensorFlow has the gradients and refuses a second one.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(op_type)(gradient)


def _multilinear_gradients(kind, wrt, operands, grad, attributes):
    """Computes the gradients of the raw op `(kind, wrt)` with respect to its operands. Returns them by operand."""
    replaced = {**operands, wrt or "upstream": grad}
    return {
        name: raw_ops.derivative(kind, None if name == "upstream" else name, replaced, attributes)
        for name in operands
        if name != "input_size"
    }


def _softmax_gradients(kind, wrt, operands, grad, attributes):
    """Computes the gradients of a raw op for filters that are the softmax of logits, the operand `spatial`."""
    if wrt != "spatial":
        return _multilinear_gradients(kind, wrt, operands, grad, attributes)
    # The op computes p * (q - sum(p * q)). Here p is the softmax of the logits, and the sum is over the taps. q is the
    # derivative of T with respect to the filter p, which is linear in inputs and upstream. y is the gradient `grad`.
    logits = operands["spatial"]
    shape = tf.shape(logits)
    per_filter = tf.concat([shape[:3], [attributes["heads"], attributes["kernel_h"] * attributes["kernel_w"]]], axis=0)
    p = softmax(tf.reshape(logits, per_filter))
    y = tf.reshape(grad, per_filter)
    q = tf.reshape(raw_ops.derivative("spatial", "spatial", operands, attributes), per_filter)
    p_y, p_q = _sum_over_taps(p * y), _sum_over_taps(p * q)
    gradient_of_q = tf.reshape(p * (y - p_y), shape)
    gradient_of_p = y * (q - p_q) - q * p_y
    linear = dict(operands, spatial=gradient_of_q)
    return {
        "inputs": raw_ops.derivative("spatial", "inputs", linear, attributes),
        "upstream": raw_ops.derivative("spatial", None, linear, attributes),
        "spatial": tf.reshape(p * (gradient_of_p - _sum_over_taps(p * gradient_of_p)), shape),
    }


def _sum_over_taps(values):
    return tf.reduce_sum(values, axis=-1, keepdims=True)


def _project_and_pool_gradients(op, upstream_projected, upstream_means):
    """Computes the gradients with standard TensorFlow ops, which TensorFlow can differentiate again."""
    inputs, kernel, _ = op.inputs
    batch, height, width, channels = sizes(inputs)
    pixels = height * width
    outputs = sizes(kernel)[1]
    rows = tf.reshape(upstream_projected, [batch * pixels, outputs])
    kernel_gradient = tf.matmul(tf.reshape(inputs, [batch * pixels, channels]), rows, transpose_a=True)
    # One matrix product computes and adds the two gradients with respect to the inputs. The gradient of a mean is the
    # same at every position: a column of ones in the first factor times a row in the second factor.
    wide = checks.accumulation(inputs.dtype)
    mean_gradient = tf.cast(tf.cast(upstream_means, wide) / tf.cast(pixels, wide), upstream_means.dtype)
    ones = tf.ones([batch, pixels, 1], upstream_projected.dtype)
    left = tf.concat([tf.reshape(upstream_projected, [batch, pixels, outputs]), ones], axis=-1)
    columns = tf.broadcast_to(tf.transpose(kernel), [batch, outputs, channels])
    inputs_gradient = tf.matmul(left, tf.concat([columns, mean_gradient[:, None]], axis=1))
    bias_gradient = tf.cast(tf.reduce_sum(tf.cast(rows, wide), axis=0), rows.dtype)
    return tf.reshape(inputs_gradient, tf.shape(inputs)), kernel_gradient, bias_gradient


for _raw_op in raw_ops.RAW_OPS:
    _register(_raw_op)
_register_once(f"{raw_ops.PREFIX}ProjectAndPool", _project_and_pool_gradients)
