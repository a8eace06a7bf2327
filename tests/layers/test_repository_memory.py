# SPDX-License-Identifier: Apache-2.0
"""Tests that `RepositoryConv2D` never holds the filters of all samples in memory."""

import json
import math

import pytest
import tensorflow as tf

from benchmarks import timing  # isort: skip  (must enable the statistics before TensorFlow allocates)
from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.ops import dynamic_conv2d

# The filters of all samples take more memory than the rest of a training step.
IMAGES, FILTERS, FEATURES = (32, 8, 8, 64), 64, 16
MAX_RATIO = 2.5  # peak memory relative to activations, coefficients and weights together


def measure():
    """Returns MB: activations, coefficients and weights; the peak of the layer; the peak with a filter per sample.

    A peak is None if the statistics of the allocator are not available.
    """
    layer = RepositoryConv2D(FILTERS, 3)
    operands = [tf.random.normal(IMAGES), tf.random.normal((IMAGES[0], FEATURES))]
    layer.build([operand.shape for operand in operands])

    def gradients(function):
        @tf.function(autograph=False)
        def compute():
            with tf.GradientTape() as tape:
                tape.watch(operands)
                loss = tf.reduce_mean(tf.square(function(*operands)))
            return tape.gradient(loss, [*operands, *layer.trainable_weights])

        return compute

    def per_sample(images, features):
        return dynamic_conv2d(images, layer.generated_filters(features))

    needed = 4e-6 * (2 * math.prod(IMAGES) + IMAGES[0] * FILTERS**2 + layer.count_params())
    return [needed, timing.peak_mb(gradients(lambda *values: layer(values))), timing.peak_mb(gradients(per_sample))]


def test_filters_of_all_samples_are_not_in_memory(python):
    """The measurement runs in a new process, because the statistics begin with the process."""
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    needed, layer, per_sample = json.loads(done.stdout.splitlines()[-1])
    if layer is None:
        pytest.skip("TensorFlow's statistics of the CPU allocator are not available")
    assert layer <= MAX_RATIO * needed
    assert per_sample > MAX_RATIO * needed  # Filters of all samples exceed the limit, so the measurement works.


if __name__ == "__main__":
    print(json.dumps(measure()))
