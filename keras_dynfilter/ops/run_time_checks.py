# SPDX-License-Identifier: Apache-2.0
"""Checks shapes when a graph runs, for composite ops whose sizes were unknown when the graph was traced.

The compiled ops check their operands at every call. Standard TensorFlow ops would broadcast a size of 1 instead.
"""

from typing import Any

import tensorflow as tf

from keras_dynfilter.ops.backends import scope


def needed(*values: tf.Tensor | None) -> bool:
    """Returns whether sizes have to be checked when the graph runs.

    This is the case if a size of one of `values` is unknown. Graphs for export have no checks, because stock runtimes
    cannot run them.
    """
    return not (all(value is None or value.shape.is_fully_defined() for value in values) or scope.is_inference_only())


def check_shape(name: str, value: tf.Tensor, **expected: Any) -> tf.Tensor:
    """Returns `value`. When the graph runs, an `InvalidArgumentError` is raised if the shape is not as expected.

    Args:
        name: Name of the argument, for the error text.
        value: The tensor.
        **expected: The expected size of each dimension, in order, by the name of the dimension: integers or scalar
            tensors.
    """
    shape, wanted = tf.shape(value), tf.stack(list(expected.values()))
    text = f"Expected `{name}` to have shape ({', '.join(expected)}) ="
    check = tf.debugging.Assert(tf.reduce_all(shape == wanted), [text, wanted, f"Received: {name}.shape=", shape])
    with tf.control_dependencies([check]):
        # XLA drops the check, but refuses to change the number of elements.
        return tf.reshape(value, wanted)


def check_heads(inputs: tf.Tensor, heads: int) -> tf.Tensor:
    """Returns channels-last images. When the graph runs, an error is raised if `heads` does not divide the channels."""
    channels = tf.shape(inputs)[-1]
    text = f"Expected `heads` to divide the channels. Received: heads={heads}, channels="
    with tf.control_dependencies([tf.debugging.Assert(channels % heads == 0, [text, channels])]):
        return tf.identity(inputs)
