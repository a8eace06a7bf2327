# SPDX-License-Identifier: Apache-2.0
"""Losses of predicted images. The papers also report them as errors."""

import keras
import numpy as np
import tensorflow as tf

EPSILON = float(np.finfo(np.float32).eps)  # 1.19e-7; Keras clips at 1e-7


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
def clipped_bce(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Computes the binary cross-entropy of grey targets, in nats per pixel, averaged over the last axis.

    Predictions are clipped to `[EPSILON, 1 - EPSILON]`, as in the code of the paper. The loss is computed in float32.
    Its minimum is the entropy of the targets, which is not zero.

    Args:
        targets: `[..., channels]`, in [0, 1].
        predictions: `[..., channels]`; values outside [0, 1] are allowed.

    Returns:
        `[...]`, float32.
    """
    targets, predictions = tf.cast(targets, tf.float32), tf.cast(predictions, tf.float32)
    predictions = tf.clip_by_value(predictions, EPSILON, 1.0 - EPSILON)
    errors = targets * tf.math.log(predictions) + (1.0 - targets) * tf.math.log(1.0 - predictions)
    return -tf.reduce_mean(errors, axis=-1)


def squared_error(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Computes the squared difference of every pixel, averaged over the last axis: `[...]`, float32."""
    difference = tf.cast(targets, tf.float32) - tf.cast(predictions, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=-1)
