# SPDX-License-Identifier: Apache-2.0
"""Labelled images as steps of a data set, shuffled anew in every epoch, small ones moved and mirrored at random."""

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import by_steps, draws
from keras_dynfilter.ops.checks import integer, positive

# Of CIFAR-10 and of ImageNet: means and deviations of red, green and blue in [0, 1].
CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def image_batches(images, labels, batch_size, steps, start=0, seed=0, pad=4, flip=True, statistics=CIFAR10_STATISTICS):
    """Batches of images at random places and of random handedness.

    Step `i` is a function of `seed` and `i` alone. An epoch takes every image once, in an order of its own; it may end
    within a batch.

    Args:
        images: `[count, height, width, channels]`, uint8.
        labels: `[count]`, integers.
        batch_size: Positive integer, images of a step.
        steps: The step to end before.
        start: The step to start with.
        seed: Integer seed, not negative.
        pad: Non-negative integer: an image moves by up to so many pixels along each axis; zeros follow it.
        flip: Whether to mirror half of the images.
        statistics: Means and deviations of the channels, for `normalized`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, `[batch, height, width, channels]`, float32, and `[batch]`, int32,
        `steps - start` batches long.

    Raises:
        ValueError: An argument is not as described.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1] or not len(images):
        expected = "Expected `images` to be [count, height, width, channels], uint8, and `labels` [count]"
        raise ValueError(f"{expected}. Received: {images.shape=}, {images.dtype=}, {labels.shape=}")
    batch_size = positive(batch_size, "batch_size")
    if not integer(pad) or pad < 0:
        raise ValueError(f"Expected `pad` to be a non-negative integer. Received: {pad=}")
    count, height, width, _ = images.shape
    padded = tf.constant(np.pad(images, [(0, 0), (pad, pad), (pad, pad), (0, 0)]))
    labels = tf.constant(labels, tf.int32)

    def batch(key, step):
        index = shuffled(key[0], step, batch_size, count)
        shift = tf.random.stateless_uniform([batch_size, 2], draws(key, 0), 0, 2 * pad + 1, tf.int32)
        rows, columns = (shift[:, axis, None] + tf.range(extent) for axis, extent in enumerate((height, width)))
        if flip:
            mirrored = tf.random.stateless_uniform([batch_size, 1], draws(key, 1)) < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        moved = tf.gather(tf.gather(padded, index), rows, axis=1, batch_dims=1)
        moved = tf.gather(moved, columns, axis=2, batch_dims=1)
        return normalized(moved, statistics), tf.gather(labels, index)

    return by_steps(batch, steps, start, seed)


def normalized(images, statistics=CIFAR10_STATISTICS):
    """Images from 0 to 255 as float32 with the means of their channels removed and their deviations set to 1.

    Args:
        images: `[..., channels]`, integers or floating-point.
        statistics: `(means, deviations)` of the channels of images from 0 to 1.
    """
    mean, deviation = (tf.constant(values, tf.float32) for values in statistics)
    return (tf.cast(images, tf.float32) / 255 - mean) / deviation


def shuffled(seed, step, batch_size, count):
    """Which of `count` examples are in a step, `[batch_size]`: every epoch takes each once, in an order of its own.

    Args:
        seed: Scalar, int64.
        step: Scalar, int64.
        batch_size: Positive integer.
        count: Positive integer.
    """
    place = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, first = place // count, step * batch_size // count
    # The permutation of a key of small numbers is close to none at all.
    keys = tf.stack(
        [
            tf.random.stateless_uniform([3], draws(tf.stack([seed, first + i]), 100), None, None, tf.int32)
            for i in range(batch_size // count + 2)
        ]
    )
    last = tf.fill([batch_size], tf.constant(count - 1, tf.int64))
    # The function of tf.random takes the key of one epoch, but a step may lie in several.
    return tf.raw_ops.RandomIndexShuffle(
        index=place % count, seed=tf.gather(keys, epoch - first), max_index=last, rounds=4
    )
