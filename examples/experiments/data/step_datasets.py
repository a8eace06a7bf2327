# SPDX-License-Identifier: Apache-2.0
"""Makes data sets whose step `i` is a function of a seed and `i` alone, so that a run can resume at any step.

A shuffled or random `tf.data.Dataset` depends on its state instead, which a checkpoint would have to hold.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_dynfilter.ops.checks import integer


def step_dataset(function: Callable[[tf.Tensor, tf.Tensor], Any], steps: int, start: int, seed: int) -> tf.data.Dataset:
    """Returns the data set of `function(key, step)` for the steps from `start` to before `steps`.

    Args:
        function: Function of plain TensorFlow ops. Its `key`, `[2]`, int64, holds the seed and the step; `random_key`
            derives keys for `tf.random.stateless_uniform` from it.
        steps: Non-negative integer: the data set ends before this step.
        start: Non-negative integer: the data set starts at this step.
        seed: Integer of 64 bits.

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


def random_key(key: tf.Tensor, number: int) -> tf.Tensor:
    """Derives the key for one kind of random numbers. The keys of different `number`s are independent at every step."""
    return key + tf.constant([0, number << 40], tf.int64)
