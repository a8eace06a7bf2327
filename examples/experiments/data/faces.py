# SPDX-License-Identifier: Apache-2.0
"""Aligns faces by their landmarks, and draws faces for trials of a network."""

from collections.abc import Sequence

import numpy as np

from examples.experiments.data.photographs import skimage_module
from keras_dynfilter.ops.checks import positive

# Left eye, right eye, nose, left and right corner of the mouth: the mean of MTFL's training faces after similarity
# transforms, made symmetric. x points right and y down, in inter-ocular distances from the point between the eyes.
MEAN_FACE = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.6), (-0.43, 1.09), (0.43, 1.09)])
MIDDLE = (0.0, 0.545)  # of the mean face, halfway from the eyes to the mouth
SIZE = 96  # rows and columns of a drawn face


def align_faces(
    images: Sequence[np.ndarray],
    landmarks: np.ndarray,
    size: int = 64,
    eyes: float = 20.0,
    angles: Sequence[float] | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Aligns faces with the mean face, by the similarity transform that fits the landmarks best.

    Pixels outside the image repeat its border, and every image is resampled once, also if its angle is 0. So neither
    blank corners nor blur reveal the angle.

    Args:
        images: Images, `[height, width, 3]` each, uint8.
        landmarks: `[count, 5, 2]`, x and y in pixels.
        size: Positive integer, rows and columns of the result.
        eyes: Inter-ocular distance of the mean face in pixels of the result.
        angles: Angles in degrees, `[count]`: each face is turned clockwise about the centre of the result. None: faces
            are upright.

    Returns:
        `(images, landmarks)`: `[count, size, size, 3]`, uint8, and `[count, 5, 2]`, float32, in pixels of the result.

    Raises:
        ValueError: An argument is not as described, or all landmarks of a face coincide.
        ImportError: scikit-image is not installed.
    """
    transform = skimage_module("transform")
    size, landmarks = positive(size, "size"), np.asarray(landmarks, np.float64)
    angles = np.zeros(len(images)) if angles is None else np.radians(angles)
    if landmarks.shape != (len(images), 5, 2) or angles.shape != (len(images),) or not len(images):
        expected = "Expected `landmarks` to be [count, 5, 2] and `angles` [count], for one image or more"
        raise ValueError(f"{expected}. Received: {len(images)} images, {landmarks.shape=}, {angles.shape=}")
    if not np.all(np.ptp(landmarks, axis=1).any(axis=-1)):
        raise ValueError("Expected the `landmarks` of a face to be apart. Received: some in one place")
    crops, points = np.empty([len(images), size, size, 3], np.uint8), np.empty(landmarks.shape, np.float32)
    for index, (image, face, angle) in enumerate(zip(images, landmarks, angles)):
        target = eyes * (MEAN_FACE - MIDDLE) @ _rotation(angle).T + (size - 1) / 2
        alignment = transform.estimate_transform("similarity", face, target)
        crop = transform.warp(
            image, alignment.inverse, output_shape=(size, size), order=1, mode="edge", preserve_range=True
        )
        crops[index], points[index] = np.round(crop), alignment(face)
    return crops, points


def generated_faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws faces for trials of a network: ellipses for head, eyes, nose and mouth, of random shape, place and colour.

    Args:
        count: Positive integer.
        seed: Integer seed.

    Returns:
        `(images, landmarks)`: `[count, 96, 96, 3]`, uint8, and `[count, 5, 2]`, float32, x and y in pixels.

    Raises:
        ValueError: `count` is not positive.
    """
    count, rng = positive(count, "count"), np.random.default_rng(seed)
    images, landmarks = np.empty([count, SIZE, SIZE, 3], np.uint8), np.empty([count, 5, 2], np.float32)
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    for image, points in zip(images, landmarks):
        face = MEAN_FACE - MIDDLE + rng.normal(0, 0.05, [5, 2])
        scale, rotation = rng.uniform(17, 23), _rotation(rng.normal(0, 0.2))
        middle = (SIZE - 1) / 2 + rng.uniform(-6, 6, 2)
        points[:] = scale * face @ rotation.T + middle
        image[:] = _draw_face(face, (grid - middle) @ rotation / scale, rng)
    return images, landmarks


def _draw_face(face: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a face with landmarks `[5, 2]` at pixel positions `[rows, columns, 2]`, both in inter-ocular distances."""

    def ellipse(middle, width, height):
        return np.sum(((positions - middle) / (width, height)) ** 2, axis=-1) < 1

    left, right, nose, *mouth = face
    skin, dark, lips = rng.uniform((120, 90, 70), (230, 190, 160)), rng.uniform(10, 80, 3), rng.uniform(90, 160)
    values = np.empty([*positions.shape[:2], 3])
    values[:] = rng.uniform(30, 220, 3)
    values[ellipse((0, 0), 1.15, 1.5)] = skin
    values[ellipse(nose - (0, 0.2), 0.12, 0.25)] = 0.75 * skin
    values[ellipse(np.mean(mouth, axis=0), np.linalg.norm(mouth[1] - mouth[0]) / 2, 0.12)] = (lips, 40, 40)
    values[ellipse(left, 0.18, 0.11) | ellipse(right, 0.18, 0.11)] = dark
    return np.clip(values + rng.normal(0, 12, values.shape), 0, 255)


def _rotation(angle: float) -> np.ndarray:
    """Returns the matrix that turns (x, y) by `angle` in radians; clockwise, because y points down."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
