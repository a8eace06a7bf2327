# SPDX-License-Identifier: Apache-2.0
"""What generators of filters need of an image: a linear map of every pixel, and the means of the channels.

    projected[n,i,j,k] = bias[k] + sum_c inputs[n,i,j,c] * kernel[c,k]
    means[n,c]         = the mean of inputs[n,i,j,c] over the positions

On CPUs a compiled op makes both in one reading of the image. TensorFlow's product of so many pixels with so few columns
takes longer than filtering the image, and reads it once more for the means.
"""

import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import dispatch


def project_and_pool(inputs, kernel, bias):
    """The linear map and the means.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        kernel: `[channels, outputs]`.
        bias: `[outputs]`.

    Returns:
        `[batch, height, width, outputs]` and `[batch, channels]`, of the dtype of `inputs`.
    """
    if dispatch.use_native() and not tf.config.get_visible_devices("GPU"):
        from keras_dynfilter.ops.backends import library

        return library.load().ops.keras_dynfilter_project_and_pool(inputs=inputs, kernel=kernel, bias=bias)
    return project(inputs, kernel, bias), pool(inputs)


def project(inputs, kernel, bias):
    """The linear map alone: `[batch, height, width, outputs]`."""
    # Not tf.nn.conv2d, which is no faster and on CPUs gives a wrong shape for an empty batch.
    product = tf.tensordot(inputs, kernel, 1)
    # At least float32, in which the gradient by the bias is then added up.
    wide = checks.accumulation(inputs.dtype)
    return tf.cast(tf.nn.bias_add(tf.cast(product, wide), tf.cast(bias, wide)), inputs.dtype)


def pool(inputs):
    """The means alone: `[batch, channels]`.

    Row by row: over both axes at once, TensorFlow takes two to four times as long on a CPU. In float32 at least:
    there it adds up float16 in float16.
    """
    accumulate = checks.accumulation(inputs.dtype)
    rows = tf.reduce_mean(tf.cast(inputs, accumulate), axis=2)
    return tf.cast(tf.reduce_mean(rows, axis=1), inputs.dtype)
