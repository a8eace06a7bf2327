# SPDX-License-Identifier: Apache-2.0
"""Regularizers of generated filters."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.layout import standardize_data_format

__all__ = ["Smoothness"]

NORMS = ("l2", "l1")


@keras.saving.register_keras_serializable("keras_dynfilter")
class Smoothness(keras.regularizers.Regularizer):
    """Penalises differences between the filters of neighbouring positions.

        factor * (mean(d(filters, height)) + mean(d(filters, width)))

    Here `d` is the squared (`norm="l2"`) or absolute (`norm="l1"`) difference of neighbours along an axis. The means
    are taken per sample and summed over the batch. Keras divides the value of an `activity_regularizer` by the batch
    size, and the layers of this package do so with the value of a `filters_regularizer`. In both uses, the penalty is
    therefore a mean over the batch.

    Args:
        factor: Non-negative number, the factor of the penalty.
        norm: `"l2"` or `"l1"`.
        data_format: Layout of the filters, `"channels_last"` or `"channels_first"`; None:
            `keras.backend.image_data_format()`.

    Raises:
        ValueError: An argument is not as described, or the filters do not have rank 4 (one filter per position).

    Example:

    >>> smoothness = Smoothness(0.5)
    >>> ramp = tf.reshape([0.0, 2.0, 4.0, 6.0], [1, 1, 4, 1])
    >>> float(smoothness(ramp))
    2.0

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016). The paper mentions the
        penalty without a formula.
    """

    def __init__(self, factor: float, norm: str = "l2", data_format: str | None = None):
        self.factor = checks.number(factor, "factor", at_least=0)
        self.norm = choice(norm, "norm", NORMS)
        self.data_format = standardize_data_format(data_format)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        if x.shape.rank != 4:
            raise ValueError(f"Expected the filters to have rank 4 (one per position). Received: shape={x.shape}")
        if x.dtype in (tf.float16, tf.bfloat16):
            x = tf.cast(x, tf.float32)
        height = 1 if self.data_format == "channels_last" else 2
        return self.factor * (self._roughness(x, height) + self._roughness(x, height + 1))

    def _roughness(self, x, axis):
        """Returns the mean penalty per sample along `axis`, summed over the samples; 0 if there are no neighbours."""
        leading = (slice(None),) * axis
        difference = x[(*leading, slice(1, None))] - x[(*leading, slice(None, -1))]
        penalty = tf.square(difference) if self.norm == "l2" else tf.abs(difference)
        per_sample = tf.cast(tf.reduce_prod(tf.shape(penalty)[1:]), penalty.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(penalty), per_sample)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "norm": self.norm, "data_format": self.data_format}
