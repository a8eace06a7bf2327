# SPDX-License-Identifier: Apache-2.0
"""Penalties for generated filters."""

import math
import numbers

import keras
import tensorflow as tf

from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.layout import standardize_data_format

NORMS = ("l2", "l1")


@keras.saving.register_keras_serializable("keras_dynfilter")
class Smoothness(keras.regularizers.Regularizer):
    """Asks neighbouring positions to use similar filters.

        weight * (mean(d(filters, height)) + mean(d(filters, width)))

    with `d` the squared (`norm="l2"`) or absolute (`norm="l1"`) difference of neighbours along an axis. The means are
    taken per sample and summed over the batch, because Keras divides what an activity regularizer returns by the batch
    size: as `activity_regularizer` of the generating layer or as `filters_regularizer` of the filtering layer the
    penalty is the mean.

    Args:
        weight: Non-negative number, the factor of the penalty.
        norm: `"l2"` or `"l1"`.
        data_format: Layout of the filters, `"channels_last"` or `"channels_first"`; None:
            `keras.backend.image_data_format()`.

    Raises:
        ValueError: An argument is not as described, or the filters do not have rank 4.

    Example:

    >>> smoothness = Smoothness(0.5)
    >>> ramp = tf.reshape([0.0, 2.0, 4.0, 6.0], [1, 1, 4, 1])
    >>> float(smoothness(ramp))
    2.0

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), which mentions the
        penalty and gives no formula.
    """

    def __init__(self, weight, norm="l2", data_format=None):
        number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"Expected `weight` to be a non-negative number. Received: weight={weight!r}")
        self.weight = float(weight)
        self.norm = choice(norm, "norm", NORMS)
        self.data_format = standardize_data_format(data_format)

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        if x.shape.rank != 4:
            raise ValueError(f"Expected the filters to have rank 4 (one per position). Received: shape={x.shape}")
        if x.dtype in (tf.float16, tf.bfloat16):
            x = tf.cast(x, tf.float32)
        height = 1 if self.data_format == "channels_last" else 2
        return self.weight * (self._roughness(x, height) + self._roughness(x, height + 1))

    def _roughness(self, x, axis):
        """Mean penalty on the differences along `axis`, summed over the samples; 0 where there are no neighbours."""
        before = (slice(None),) * axis
        difference = x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]
        penalty = tf.square(difference) if self.norm == "l2" else tf.abs(difference)
        per_sample = tf.cast(tf.reduce_prod(tf.shape(penalty)[1:]), penalty.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(penalty), per_sample)

    def get_config(self):
        return {"weight": self.weight, "norm": self.norm, "data_format": self.data_format}
