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
    # Sums over the taps are in float32 or wider.
    logits = operands["spatial"]
    shape, dtype, wide = tf.shape(logits), logits.dtype, checks.accumulation(logits.dtype)
    per_filter = tf.concat([shape[:3], [attributes["heads"], attributes["kernel_h"] * attributes["kernel_w"]]], axis=0)
    q = raw_ops.derivative("spatial", "spatial", operands, attributes)
    logits, y, q = (tf.cast(tf.reshape(value, per_filter), wide) for value in (logits, grad, q))
    p = softmax(logits)
    p_y, p_q = _sum_over_taps(p * y), _sum_over_taps(p * q)

    def stored(gradient):
        return tf.cast(tf.reshape(gradient, shape), dtype)

    gradient_of_q = p * (y - p_y)
    gradient_of_p = y * (q - p_q) - q * p_y
    linear = dict(operands, spatial=stored(gradient_of_q))
    return {
        "inputs": raw_ops.derivative("spatial", "inputs", linear, attributes),
        "upstream": raw_ops.derivative("spatial", None, linear, attributes),
        "spatial": stored(p * (gradient_of_p - _sum_over_taps(p * gradient_of_p))),
    }


def _sum_over_taps(values):
    return tf.reduce_sum(values, axis=-1, keepdims=True)


def _project_and_pool_gradients(op, upstream_projected, upstream_means):
    inputs, kernel, _ = op.inputs
    wide = checks.accumulation(inputs.dtype)
    return (
        _projection_inputs_gradient(sizes(inputs), kernel, upstream_projected, upstream_means),
        _projection_kernel_gradient(inputs, upstream_projected),
        tf.cast(tf.reduce_sum(tf.cast(upstream_projected, wide), axis=[0, 1, 2]), inputs.dtype),
    )


def _projection_inputs_gradient(shape, kernel, upstream_projected, upstream_means):
    """Computes the gradient of `project_and_pool` with respect to its inputs, which have the given shape."""
    batch, height, width, channels = shape
    pixels, outputs = height * width, sizes(kernel)[1]
    wide = checks.accumulation(kernel.dtype)

    @tf.custom_gradient
    def compute(kernel, upstream_projected, upstream_means):
        # One matrix product computes and adds the gradients of the projection and of the means. The gradient of a mean
        # is the same at every position: a column of ones in the first factor times a row in the second factor.
        mean_gradient = tf.cast(tf.cast(upstream_means, wide) / tf.cast(pixels, wide), upstream_means.dtype)
        ones = tf.ones([batch, pixels, 1], upstream_projected.dtype)
        left = tf.concat([tf.reshape(upstream_projected, [batch, pixels, outputs]), ones], axis=-1)
        columns = tf.broadcast_to(tf.transpose(kernel), [batch, outputs, channels])
        product = tf.matmul(left, tf.concat([columns, mean_gradient[:, None]], axis=1))

        def gradient(direction):
            # The function is linear in the upstream gradients, so its gradient with respect to them is the op itself.
            no_bias = tf.zeros([outputs], kernel.dtype)
            projected, means = raw_ops.project_and_pool(direction, kernel, no_bias)
            return _projection_kernel_gradient(direction, upstream_projected), projected, means

        return tf.reshape(product, shape), gradient

    return compute(kernel, upstream_projected, upstream_means)


def _projection_kernel_gradient(inputs, upstream_projected):
    """Computes the gradient of `project_and_pool` with respect to its kernel."""
    batch, height, width, channels = sizes(inputs)
    pixels = batch * height * width
    rows = tf.reshape(upstream_projected, [pixels, sizes(upstream_projected)[3]])
    return tf.matmul(tf.reshape(inputs, [pixels, channels]), rows, transpose_a=True)


for _raw_op in raw_ops.RAW_OPS:
    _register(_raw_op)
_register_once(f"{raw_ops.PREFIX}ProjectAndPool", _project_and_pool_gradients)
