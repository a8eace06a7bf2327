# SPDX-License-Identifier: Apache-2.0
"""Makes batches of small labelled images, which are shuffled in every epoch, and shifted and mirrored at random."""

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import random_key, step_dataset
from keras_dynfilter.ops.checks import integer, positive

# Means and standard deviations of red, green and blue in [0, 1].
CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def image_batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    pad: int = 4,
    flip: bool = True,
    statistics: Statistics = CIFAR10_STATISTICS,
) -> tf.data.Dataset:
    """Returns batches of images that are shifted and mirrored at random.

    Step `i` is a function of `seed` and `i` alone. Every epoch takes each image once, in an order of its own. An epoch
    may end within a batch.

    Args:
        images: `[count, height, width, channels]`, uint8.
        labels: `[count]`, integers.
        batch_size: Positive integer, images per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Non-negative integer seed.
        pad: Non-negative integer: an image is shifted by up to this many pixels along each axis. Zeros fill the gap.
        flip: Whether to mirror half of the images.
        statistics: Means and standard deviations of the channels, for `normalized`.

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
        index = shuffled_indices(key[0], step, batch_size, count)
        shift = tf.random.stateless_uniform([batch_size, 2], random_key(key, 0), 0, 2 * pad + 1, tf.int32)
        rows, columns = (shift[:, axis, None] + tf.range(extent) for axis, extent in enumerate((height, width)))
        if flip:
            mirrored = tf.random.stateless_uniform([batch_size, 1], random_key(key, 1)) < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        shifted = tf.gather(tf.gather(padded, index), rows, axis=1, batch_dims=1)
        shifted = tf.gather(shifted, columns, axis=2, batch_dims=1)
        return normalized(shifted, statistics), tf.gather(labels, index)

    return step_dataset(batch, steps, start, seed)


def normalized(images: np.ndarray | tf.Tensor, statistics: Statistics = CIFAR10_STATISTICS) -> tf.Tensor:
    """Scales images with values from 0 to 255 to float32 channels of mean 0 and standard deviation 1.

    Args:
        images: `[..., channels]`, integers or floating-point.
        statistics: Means and standard deviations of the channels of images with values from 0 to 1.
    """
    mean, deviation = (tf.constant(values, tf.float32) for values in statistics)
    return (tf.cast(images, tf.float32) / 255 - mean) / deviation


def shuffled_indices(seed: tf.Tensor, step: tf.Tensor, batch_size: int, count: int) -> tf.Tensor:
    """Returns the indices of the examples of a step, `[batch_size]`.

    Every epoch takes each of `count` examples once, in an order of its own.

    Args:
        seed: Scalar, int64.
        step: Scalar, int64.
        batch_size: Positive integer.
        count: Positive integer.
    """
    position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, first = position // count, step * batch_size // count
    # RandomIndexShuffle hardly shuffles with a key of small numbers, so its keys are random numbers of 32 bits.
    keys = tf.stack(
        [
            tf.random.stateless_uniform([3], random_key(tf.stack([seed, first + i]), 100), None, None, tf.int32)
            for i in range(batch_size // count + 2)
        ]
    )
    last = tf.fill([batch_size], tf.constant(count - 1, tf.int64))
    # tf.random.experimental.index_shuffle takes one key only, but the indices of a step may belong to several epochs.
    return tf.raw_ops.RandomIndexShuffle(
        index=position % count, seed=tf.gather(keys, epoch - first), max_index=last, rounds=4
    )
