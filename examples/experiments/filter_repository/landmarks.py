# SPDX-License-Identifier: Apache-2.0
"""Landmarks as maps of scores: what a network is trained on, what is read off its maps, how far that is off."""

import keras
import numpy as np
import tensorflow as tf

REACH = 4  # pixels around the highest score that a position is the mean of


def make_maps(landmarks, size, sigma):
    """Probabilities of where landmarks are: Gaussians.

    Args:
        landmarks: `[batch, points, 2]`, x and y in pixels.
        size: Rows and columns of the maps.
        sigma: Deviation in pixels.

    Returns:
        `[batch, size, size, points]`, float32; a map sums to 1.
    """
    distances = tf.range(size, dtype=tf.float32) - tf.cast(landmarks, tf.float32)[..., None]
    shares = tf.nn.softmax(-tf.square(distances) / (2 * sigma**2))  # [batch, points, 2, size]
    return tf.einsum("bpc,bpr->brcp", shares[:, :, 0], shares[:, :, 1])


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
def position_crossentropy(targets, maps):
    """Softmax cross-entropy with positions for classes, in nats.

    Args:
        targets: Probabilities of the positions, `[batch, height, width, points]`.
        maps: Scores of the same shape.

    Returns:
        `[batch, points]`.
    """
    shape = [-1, maps.shape[1] * maps.shape[2], maps.shape[3]]
    return -tf.reduce_sum(tf.reshape(targets, shape) * tf.nn.log_softmax(tf.reshape(maps, shape), axis=1), axis=1)


def read_maps(maps):
    """Where landmarks are: the mean of the positions near that of the highest score, by their probabilities.

    Args:
        maps: Scores, `[batch, height, width, points]`.

    Returns:
        `[batch, points, 2]`, x and y in pixels.
    """
    maps = np.moveaxis(np.asarray(maps, np.float64), -1, 1)
    height, width = maps.shape[2:]
    rows, columns = np.mgrid[:height, :width]
    row, column = np.divmod(maps.reshape(*maps.shape[:2], -1).argmax(axis=-1)[..., None, None], width)
    near = (abs(rows - row) <= REACH) & (abs(columns - column) <= REACH)
    weights = np.where(near, np.exp(maps - maps.max(axis=(2, 3), keepdims=True)), 0.0)
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    return np.stack([(weights * place).sum(axis=(2, 3)) for place in (columns, rows)], axis=-1)


def eye_distances(landmarks):
    """The distances of the eyes, `[faces]`, of landmarks, `[faces, 5, 2]`, of which the eyes come first.

    Raises:
        ValueError: The eyes of a face are in one place: errors in percent of their distance would be infinite.
    """
    distances = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=-1)
    if not np.all(distances > 0):
        where = np.flatnonzero(~(distances > 0)).tolist()
        raise ValueError(f"Expected the eyes of every face to be apart. Received: eyes in one place in faces {where}")
    return distances


def errors(found, landmarks):
    """Distances of landmarks from the true ones in percent of the true distance of the eyes.

    Args:
        found: `[faces, 5, 2]`, or `[5, 2]` for all faces.
        landmarks: The true ones, `[faces, 5, 2]`; the eyes come first.

    Returns:
        `[faces, 5]`.

    Raises:
        ValueError: The eyes of a face are in one place.
    """
    return 100 * np.linalg.norm(found - landmarks, axis=-1) / eye_distances(landmarks)[:, None]


def describe(values):
    """Mean and largest of what `errors` returns; `"max_face"`: of the means of the landmarks of a face."""
    figures = {"mean": values.mean(), "max": values.max(), "max_face": values.mean(axis=1).max()}
    return {name: float(value) for name, value in figures.items()} | {"by_landmark": values.mean(axis=0).tolist()}
