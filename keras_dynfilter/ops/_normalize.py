# SPDX-License-Identifier: Apache-2.0
"""Generated filters, each normalised over its own taps.

    outputs = gain * (filters - mean) / (std + epsilon)

`std` is the unbiased one. A filter whose taps are all equal becomes 0, with derivatives of 0. On CPUs a compiled op
does at once what takes a dozen ops of TensorFlow's, and more with the gradient.
"""

import math

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops import _composite, _dispatch


def native():
    """Whether the compiled op is used, which also centres.

    Not in exports: runtimes know no such op, and in their files the mean is part of the weights that generate filters.
    """
    if not _dispatch.use_native() or _dispatch.exports() or tf.config.get_visible_devices("GPU"):
        return False
    from keras_dynfilter.ops import _library

    return _library.load().xla  # else layers compiled by XLA would fail: composed, also under implementation("native")


def centred(filters, axis):
    """`filters` minus the mean over an axis of taps."""
    first = filters[(slice(None),) * axis + (slice(1),)]
    # The mean of equal numbers may be rounded, but their differences to the first are exactly 0. What comes out does
    # not depend on what is subtracted here, which therefore has no gradient.
    differences = filters - tf.stop_gradient(first)
    return differences - tf.reduce_mean(differences, axis, keepdims=True)


def normalized(filters, axis, gain, epsilon):
    """The formula, for filters in float32 or float64 whose mean over the axis of taps is 0, or any if `native()`."""
    if not native():
        return _standardized(filters, axis, gain, epsilon)
    from keras_dynfilter.ops import _library

    sizes = _composite.sizes(filters)
    flat = tf.reshape(filters, [math.prod(sizes[:axis]), sizes[axis], math.prod(sizes[axis + 1 :])])
    gain, epsilon = tf.constant(gain, flat.dtype), tf.constant(epsilon, flat.dtype)
    raw = _library.load().ops.keras_dynfilter_normalize_filters
    return tf.reshape(raw(filters=flat, gain=gain, epsilon=epsilon, taps=sizes[axis]), sizes)


def composed(filters, gain, epsilon):
    """What the compiled op computes: any filters `[outer, taps, inner]`."""
    return _standardized(centred(filters, 1), 1, gain, epsilon)


def _standardized(values, axis, gain, epsilon):
    taps = values.shape[axis]
    variance = tf.reduce_sum(tf.square(values), axis, keepdims=True) * (1 / (taps - 1))
    # The derivative of a square root at 0 is infinite: no derivative of any order may pass there.
    varies = variance > np.finfo(values.dtype.as_numpy_dtype).tiny
    deviation = tf.sqrt(tf.where(varies, variance, tf.ones_like(variance)))
    return values * tf.where(varies, gain / (deviation + epsilon), tf.zeros_like(variance))
