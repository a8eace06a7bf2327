# SPDX-License-Identifier: Apache-2.0
"""Computes steerable filters, and generates training data for them: triples (image, angle, filtered image)."""

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import random_key, step_dataset
from keras_dynfilter.ops.checks import integer, number, positive


def steerable_filter(angles: np.ndarray | float, size: int = 9, sigma: float = 1.0) -> np.ndarray:
    """Computes the first derivative of a Gaussian along a direction, as a filter for cross-correlation.

        F(dy, dx) = -(cos(angle) * dx + sin(angle) * dy) / sigma * exp(-(dx^2 + dy^2) / (2 * sigma^2))

    `dx` points right and `dy` down; the filter is not normalised.

    Args:
        angles: Angles in radians, of any shape.
        size: Odd number of rows and columns.
        sigma: Width of the Gaussian in pixels.

    Returns:
        Filters, `[*angles.shape, size, size]`, float64.

    Raises:
        ValueError: `size` is not odd and positive, or `sigma` is not positive.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.1.
    """
    if not integer(size) or size < 1 or size % 2 == 0:
        raise ValueError(f"Expected `size` to be odd and positive. Received: size={size!r}")
    sigma = number(sigma, "sigma", above=0, expected="positive")
    angles = np.asarray(angles, np.float64)[..., None, None]
    offsets = np.arange(size) - size // 2
    dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
    gauss = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    return -(np.cos(angles) * dx + np.sin(angles) * dy) / sigma * gauss


def apply_steerable_filter(
    images: np.ndarray | tf.Tensor, angles: np.ndarray | tf.Tensor, size: int = 9, sigma: float = 1.0
) -> tf.Tensor:
    """Filters each image with the steerable filter of its angle.

    Args:
        images: `[count, height, width, 1]`, floating-point, padded with zeros.
        angles: `[count]` or `[count, 1]`, radians.
        size: Odd number of rows and columns of the filter.
        sigma: Width of the filter in pixels.

    Returns:
        Tensor `[count, height, width, 1]`, of the dtype of `images`.

    Raises:
        ValueError: `images` has another shape, there is not one angle per image, `size` is not odd and positive, or
            `sigma` is not positive.
    """
    images, angles = _images(images), tf.reshape(angles, [-1])
    if len(angles) != len(images):
        raise ValueError(f"Expected `angles` to be one per image. Received: {len(angles)} for {len(images)} images")
    return _steer(_responses(images, size, sigma), angles)


def steerable_triples(
    images: np.ndarray | tf.Tensor,
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    size: int = 9,
    sigma: float = 1.0,
) -> tf.data.Dataset:
    """Returns batches of triples: image, angle, and the image filtered at that angle.

    Step `i` is a function of `seed` and `i` alone, so that a run that resumes at `start` sees the same triples as a run
    without a break. The filter of any angle is a sum of two filters, `cos(angle) * F(0) + sin(angle) * F(90 degrees)`.
    All images are filtered with these two filters once, and a step only mixes the two results.

    Args:
        images: `[count, height, width, 1]`, float32, at least one.
        batch_size: Positive integer, triples per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Integer seed of images and angles.
        size: Odd number of rows and columns of the filter.
        sigma: Width of the filter.

    Returns:
        A `tf.data.Dataset` of `({"images": [batch, height, width, 1], "angles": [batch, 1]}, results)`, `steps - start`
        batches long. Angles are uniform in `[0, 2 pi)`.

    Raises:
        ValueError: `images` is empty or has another shape, `batch_size` is not positive, `size` is not odd and
            positive, or `sigma` is not positive.
    """
    batch_size = positive(batch_size, "batch_size")
    images = _images(images)
    if not len(images):
        raise ValueError(f"Expected `images` to hold an image. Received: images.shape={tuple(images.shape)}")
    responses = _responses(images, size, sigma)
    count = len(images)

    def triples(key, step):
        chosen = tf.random.stateless_uniform([batch_size], random_key(key, 0), 0, count, tf.int32)
        angles = tf.random.stateless_uniform([batch_size, 1], random_key(key, 1), 0.0, 2 * np.pi, images.dtype)
        results = _steer(tf.gather(responses, chosen), angles[:, 0])
        return {"images": tf.gather(images, chosen), "angles": angles}, results

    return step_dataset(triples, steps, start, seed)


def _images(images):
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or images.shape[-1] != 1:
        expected = "Expected `images` to have shape (count, height, width, 1)"
        raise ValueError(f"{expected}. Received: images.shape={tuple(images.shape)}")
    return images


def _responses(images, size, sigma, batch=128):
    """Filters the images at 0 and at 90 degrees: `[count, height, width, 2]`."""
    bank = np.moveaxis(steerable_filter([0, np.pi / 2], size, sigma), 0, -1)[:, :, None]
    bank = tf.constant(bank, images.dtype)
    parts = [tf.nn.conv2d(images[i : i + batch], bank, 1, "SAME") for i in range(0, max(len(images), 1), batch)]
    return tf.concat(parts, axis=0)


def _steer(responses, angles):
    """Mixes `[count, height, width, 2]` for `angles`, `[count]`, into `[count, height, width, 1]`."""
    angles = tf.cast(angles, responses.dtype)[:, None, None, None]
    return tf.cos(angles) * responses[..., :1] + tf.sin(angles) * responses[..., 1:]
