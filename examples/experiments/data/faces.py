# SPDX-License-Identifier: Apache-2.0
"""Faces with five landmarks: MTFL where it is found, else drawn ones; brought into one position, turned, cropped."""

import itertools

import numpy as np
import tensorflow as tf

from examples.experiments.data.locate import find_data
from examples.experiments.data.photographs import skimage_module
from keras_dynfilter.ops.checks import choice, positive

# Left eye, right eye, nose, left and right corner of the mouth: the mean of MTFL's training faces after similarity
# transforms, made symmetric; x to the right and y down, in distances between the eyes, from the middle between them.
MEAN_FACE = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.6), (-0.43, 1.09), (0.43, 1.09)])
MIDDLE = (0.0, 0.545)  # of the mean face, halfway from the eyes to the mouth
SPLITS = {"train": 1_000, "test": 250}  # with the number of faces that are drawn
LISTS = {"train": "training.txt", "test": "testing.txt"}
SOURCES = ("auto", "mtfl", "generated")
SIZE = 96


def load_mtfl(split="train", data_dir=None, source="auto", longest=SIZE, return_source=False):
    """Loads the faces of the Multi-Task Facial Landmark data set.

    Args:
        split: `"train"` or `"test"`, as MTFL is divided.
        data_dir: Folder with `mtfl_faces/`, or this folder; see `find_data`. It holds `training.txt`, `testing.txt` and
            the folders of images that these name, as MTFL is published; or `mtfl_train.npz`, `mtfl_test.npz` with the
            arrays `jpeg` (JPEG files one after the other, uint8), `offsets` (where each begins, and the end) and
            `landmarks` (`[count, 5, 2]`, x and y in pixels).
        source: `"mtfl"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`; nothing is downloaded. `"generated"`: drawn faces,
            see `generated_faces`. `"auto"`: MTFL if it is there, else drawn faces; a line is printed then.
        longest: Positive integer: an image with a longer side is shrunk to it.
        return_source: Whether to return too which faces these are, which `"auto"` leaves open.

    Returns:
        `(images, landmarks)`: a list of `[height, width, 3]`, uint8, and `[count, 5, 2]`, float32: x and y in pixels
        of left eye, right eye, nose, left and right corner of the mouth; left in the image. With `return_source=True`
        also `"mtfl"` or `"generated"`.

    Raises:
        ValueError: An argument is not as described, or the files are not.
        FileNotFoundError: `source` is `"mtfl"`, and there is none.
    """
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    *loaded, source = _load(split, data_dir, source, positive(longest, "longest"))
    return (*loaded, source) if return_source else tuple(loaded)


def _load(split, data_dir, source, longest):
    folder = None if source == "generated" else find_data("mtfl_faces", data_dir)
    if folder is not None:
        return *_read(folder, split, longest), "mtfl"
    if source == "mtfl":
        raise FileNotFoundError("Expected mtfl_faces/ in `data_dir` or $KERAS_DYNFILTER_DATA. Received: no such folder")
    if source == "auto":
        print("No MTFL found: faces are drawn instead. See --data-dir.", flush=True)
    images, landmarks = generated_faces(SPLITS[split], seed=list(SPLITS).index(split))
    return list(images), landmarks, "generated"


def align_faces(images, landmarks, size=64, eyes=20.0, angles=None):
    """Brings faces to one place, size and direction, by the similarity transform that fits the mean face best.

    Pixels beyond the image are those of its border. An image is sampled once, turned or not, so that neither blank
    corners nor blur tell by how much it was turned.

    Args:
        images: Images, `[height, width, 3]` each, uint8.
        landmarks: `[count, 5, 2]`, x and y in pixels.
        size: Positive integer, rows and columns of the result.
        eyes: Distance of the eyes of the mean face, in pixels of the result.
        angles: By how much each face is turned about the middle of the result, clockwise, `[count]`, degrees; None: not
            at all.

    Returns:
        `(images, landmarks)`: `[count, size, size, 3]`, uint8, and `[count, 5, 2]`, float32, in pixels of the result.

    Raises:
        ValueError: An argument is not as described, or the landmarks of a face are all in one place.
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
        target = eyes * (MEAN_FACE - MIDDLE) @ _turn(angle).T + (size - 1) / 2
        place = transform.estimate_transform("similarity", face, target)
        crop = transform.warp(
            image, place.inverse, output_shape=(size, size), order=1, mode="edge", preserve_range=True
        )
        crops[index], points[index] = np.round(crop), place(face)
    return crops, points


def generated_faces(count, seed=0):
    """Faces to try a network with: ellipses for head, eyes, nose and mouth, of random shapes, places and colours.

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
        scale, turn = rng.uniform(17, 23), _turn(rng.normal(0, 0.2))
        middle = (SIZE - 1) / 2 + rng.uniform(-6, 6, 2)
        points[:] = scale * face @ turn.T + middle
        image[:] = _drawn(face, (grid - middle) @ turn / scale, rng)
    return images, landmarks


def _drawn(face, place, rng):
    """A face with landmarks `face`, `[5, 2]`, seen at `place`, `[rows, columns, 2]`, both in distances of the eyes."""

    def ellipse(middle, width, height):
        return np.sum(((place - middle) / (width, height)) ** 2, axis=-1) < 1

    left, right, nose, *mouth = face
    skin, dark, lips = rng.uniform((120, 90, 70), (230, 190, 160)), rng.uniform(10, 80, 3), rng.uniform(90, 160)
    values = np.empty([*place.shape[:2], 3])
    values[:] = rng.uniform(30, 220, 3)
    values[ellipse((0, 0), 1.15, 1.5)] = skin
    values[ellipse(nose - (0, 0.2), 0.12, 0.25)] = 0.75 * skin
    values[ellipse(np.mean(mouth, axis=0), np.linalg.norm(mouth[1] - mouth[0]) / 2, 0.12)] = (lips, 40, 40)
    values[ellipse(left, 0.18, 0.11) | ellipse(right, 0.18, 0.11)] = dark
    return np.clip(values + rng.normal(0, 12, values.shape), 0, 255)


def _turn(angle):
    """The matrix that turns x and y by `angle`, in radians, clockwise as y is down."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _read(folder, split, longest):
    packed, listed = folder / f"mtfl_{split}.npz", folder / LISTS[split]
    expected = f"Expected {folder} to hold {listed.name} and its images, or {packed.name} with jpeg, offsets, landmarks"
    try:
        files, landmarks = _packed(packed) if packed.exists() else _listed(listed)
        if len(files) != len(landmarks) or landmarks.shape[1:] != (5, 2):
            raise ValueError(f"{len(files)} images, {landmarks.shape=}")
        images = [tf.io.decode_jpeg(file, channels=3) for file in files]
    except Exception as error:  # NumPy and the decoder have many for files that are missing or damaged
        raise ValueError(f"{expected}. Received: {error}") from error
    shrinks = [min(1.0, longest / max(image.shape)) for image in images]
    images = [_shrunk(image, shrink) for image, shrink in zip(images, shrinks)]
    return images, (landmarks * np.array(shrinks)[:, None, None]).astype(np.float32)


def _packed(path):
    with np.load(path) as content:
        jpeg, offsets, landmarks = (content[name] for name in ("jpeg", "offsets", "landmarks"))
    return [jpeg[first:end].tobytes() for first, end in itertools.pairwise(offsets)], landmarks


def _listed(path):
    """A line of the list is the name of an image, x of all landmarks, y of all landmarks, and more."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    files = [(path.parent / line[0].replace("\\", "/")).read_bytes() for line in lines]
    landmarks = np.array([line[1:11] for line in lines], np.float64).reshape(-1, 2, 5)
    return files, landmarks.swapaxes(1, 2)


def _shrunk(image, factor):
    if factor == 1:
        return image.numpy()
    size = [round(factor * extent) for extent in image.shape[:2]]
    shrunk = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(shrunk, 0.0, 255.0)), tf.uint8).numpy()
