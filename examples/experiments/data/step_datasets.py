# SPDX-License-Identifier: Apache-2.0
"""Data sets by steps: step `i` is a function of a seed and `i` alone, so a training can be taken up anywhere."""

import tensorflow as tf

from keras_dynfilter.ops.checks import integer


def by_steps(function, steps, start, seed):
    """The data set of `function(key, step)`, for the steps from `start` to before `steps`.

    Args:
        function: Function of plain TensorFlow ops. Its `key`, `[2]`, int64, holds the seed and the step, for
            `tf.random.stateless_uniform`; see `draws`.
        steps: Integer, the step to end before.
        start: Integer, the step to start with.
        seed: Integer of 64 bits.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: An argument is not as described.
    """
    for name, value in (("steps", steps), ("start", start)):
        if not integer(value) or value < 0:
            raise ValueError(f"Expected `{name}` to be a non-negative integer. Received: {name}={value!r}")
    if not integer(seed) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"Expected `seed` to be an integer of 64 bits. Received: seed={seed!r}")
    seed = tf.constant(seed, tf.int64)
    steps = tf.data.Dataset.range(start, max(start, steps))
    return steps.map(lambda step: function(tf.stack([seed, step]), step), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def draws(key, number):
    """A key for the random numbers of one kind; 0, 1, 2 ... are independent of each other at every step."""
    return key + tf.constant([0, number << 40], tf.int64)
