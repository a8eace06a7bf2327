# SPDX-License-Identifier: Apache-2.0
"""Projects every pixel linearly and averages every channel, as filter generators do with an image.

    projected[n,i,j,k] = bias[k] + sum_c inputs[n,i,j,c] * kernel[c,k]
    means[n,c]         = mean_{i,j} inputs[n,i,j,c]

On CPUs, one compiled op computes the projection and the means and reads the image once. TensorFlow ops read it twice,
and their product of many pixels and few columns takes longer than filtering the image.
"""

import tensorflow as tf

from keras_dynfilter.ops import backends, checks
from keras_dynfilter.ops.backends import raw_ops


def project_and_pool(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Projects every pixel and averages every channel.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        kernel: Weights, `[channels, outputs]`.
        bias: Biases, `[outputs]`.

    Returns:
        The projection, `[batch, height, width, outputs]`, and the means, `[batch, channels]`. Their dtype is the dtype
        of `inputs`.

    Raises:
        RuntimeError: The native implementation is requested and not available.
    """
    if backends.choose("project_and_pool").name == "native":
        return raw_ops.project_and_pool(inputs, kernel, bias)
    return project(inputs, kernel, bias), pool(inputs)


def project(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Projects every pixel with TensorFlow ops; returns `[batch, height, width, outputs]`."""
    # tf.nn.conv2d is no faster, and on CPUs it returns a wrong shape for an empty batch.
    product = tf.tensordot(inputs, kernel, 1)
    # The bias is added in float32 or wider, so that its gradient is summed in this dtype.
    wide = checks.accumulation(inputs.dtype)
    return tf.cast(tf.nn.bias_add(tf.cast(product, wide), tf.cast(bias, wide)), inputs.dtype)


def pool(inputs: tf.Tensor) -> tf.Tensor:
    """Averages every channel with TensorFlow ops; returns `[batch, channels]`.

    The function averages rows first: on CPUs, TensorFlow takes two to four times as long to average over two axes at
    once. It computes in float32 or wider, because TensorFlow sums float16 values in float16 on CPUs.
    """
    wide = checks.accumulation(inputs.dtype)
    rows = tf.reduce_mean(tf.cast(inputs, wide), axis=2)
    return tf.cast(tf.reduce_mean(rows, axis=1), inputs.dtype)
