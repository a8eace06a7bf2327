# SPDX-License-Identifier: Apache-2.0
"""The softmax of generated filters, with the same NaN in every implementation."""

import tensorflow as tf

from keras_dynfilter.ops.backends import scope


def softmax(logits: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Computes the softmax over an axis. If a logit is NaN or plus infinity, it is NaN along the whole axis.

    The compiled ops and XLA do the same. For float32 on CPUs, `tf.nn.softmax` alone is NaN only at such a logit.
    Graphs for export leave out the correction: it changes gradients, but not the outputs of a filter.
    """
    values = tf.nn.softmax(logits, axis)
    if scope.is_inference_only():
        return values
    total = tf.reduce_sum(values, axis, keepdims=True)
    return values + tf.stop_gradient(total - total)
