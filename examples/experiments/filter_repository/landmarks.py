# SPDX-License-Identifier: Apache-2.0
"""Represents landmarks as heat maps: targets of the training, positions by a local soft-argmax, errors."""

import keras
import numpy as np
import tensorflow as tf

RADIUS = 4  # the soft-argmax averages over positions up to so many pixels from the highest score


def target_heatmaps(landmarks, size: int, sigma: float) -> tf.Tensor:
    """Returns the probabilities of the positions of landmarks, as Gaussians.

    Args:
        landmarks: `[batch, points, 2]`, x and y in pixels.
        size: Rows and columns of the heat maps.
        sigma: Standard deviation in pixels.

    Returns:
        `[batch, size, size, points]`, float32; every heat map sums to 1.
    """
    distances = tf.range(size, dtype=tf.float32) - tf.cast(landmarks, tf.float32)[..., None]
    by_axis = tf.nn.softmax(-tf.square(distances) / (2 * sigma**2))  # [batch, points, 2, size]
    return tf.einsum("bpc,bpr->brcp", by_axis[:, :, 0], by_axis[:, :, 1])


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
def position_crossentropy(targets: tf.Tensor, heatmaps: tf.Tensor) -> tf.Tensor:
    """Computes the softmax cross-entropy with the positions as classes, in nats.

    Args:
        targets: Probabilities of the positions, `[batch, height, width, points]`.
        heatmaps: Scores of the same shape.

    Returns:
        `[batch, points]`.
    """
    shape = [-1, heatmaps.shape[1] * heatmaps.shape[2], heatmaps.shape[3]]
    logarithms = tf.nn.log_softmax(tf.reshape(heatmaps, shape), axis=1)
    return -tf.reduce_sum(tf.reshape(targets, shape) * logarithms, axis=1)


def soft_argmax(heatmaps) -> np.ndarray:
    """Returns the positions of landmarks: the expected position near the highest score of each heat map.

    Args:
        heatmaps: Scores, `[batch, height, width, points]`.

    Returns:
        `[batch, points, 2]`, x and y in pixels.
    """
    heatmaps = np.moveaxis(np.asarray(heatmaps, np.float64), -1, 1)
    height, width = heatmaps.shape[2:]
    rows, columns = np.mgrid[:height, :width]
    row, column = np.divmod(heatmaps.reshape(*heatmaps.shape[:2], -1).argmax(axis=-1)[..., None, None], width)
    near = (abs(rows - row) <= RADIUS) & (abs(columns - column) <= RADIUS)
    weights = np.where(near, np.exp(heatmaps - heatmaps.max(axis=(2, 3), keepdims=True)), 0.0)
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    return np.stack([(weights * place).sum(axis=(2, 3)) for place in (columns, rows)], axis=-1)


def interocular_distances(landmarks: np.ndarray) -> np.ndarray:
    """Returns the distances between the eyes, `[faces]`; the eyes are the first two landmarks of `[faces, 5, 2]`.

    Raises:
        ValueError: The eyes of a face are at the same position, so that errors relative to their distance are infinite.
    """
    distances = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=-1)
    if not np.all(distances > 0):
        where = np.flatnonzero(~(distances > 0)).tolist()
        raise ValueError(f"Expected the eyes of every face to be apart. Received: eyes in one place in faces {where}")
    return distances


def errors(predicted: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Computes the distances from the true landmarks in percent of the true inter-ocular distance.

    Args:
        predicted: Landmarks, `[faces, 5, 2]`, or `[5, 2]` if they are the same for all faces.
        landmarks: The true landmarks, `[faces, 5, 2]`; the eyes are the first two.

    Returns:
        `[faces, 5]`.

    Raises:
        ValueError: The eyes of a face are at the same position.
    """
    return 100 * np.linalg.norm(predicted - landmarks, axis=-1) / interocular_distances(landmarks)[:, None]


def describe(values: np.ndarray) -> dict:
    """Summarizes `errors`: mean and largest error, largest mean error of a face, mean error of each landmark."""
    figures = {"mean": values.mean(), "max": values.max(), "max_face": values.mean(axis=1).max()}
    return {name: float(value) for name, value in figures.items()} | {"by_landmark": values.mean(axis=0).tolist()}
