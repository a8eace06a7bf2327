# SPDX-License-Identifier: Apache-2.0
"""Loads MTFL, faces with five landmarks, or draws faces if MTFL is not available."""

import itertools
import os
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from examples.experiments.data.faces import SIZE, generated_faces
from examples.experiments.data.image_limits import check_jpeg, read_bytes
from examples.experiments.data.locate import find_data
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.untrusted import archives, npz

SPLITS = {"train": 1_000, "test": 250}  # and the number of faces that are drawn for each
LISTS = {"train": "training.txt", "test": "testing.txt"}
SOURCES = ("auto", "mtfl", "generated")


class Faces(NamedTuple):
    """Faces with their landmarks.

    Attributes:
        images: A list of `[height, width, 3]`, uint8.
        landmarks: `[count, 5, 2]`, float32: x and y in pixels of left eye, right eye, nose, left and right corner of
            the mouth. "Left" is the left side of the image.
        source: `"mtfl"` or `"generated"`. With `source="auto"`, the loader has chosen it.
    """

    images: list[np.ndarray]
    landmarks: np.ndarray
    source: str


def load_mtfl(
    split: str = "train", data_dir: str | os.PathLike | None = None, source: str = "auto", longest: int = SIZE
) -> Faces:
    """Loads the faces of the Multi-Task Facial Landmark data set.

    Args:
        split: `"train"` or `"test"`, the official split of MTFL.
        data_dir: Folder that contains `mtfl_faces`, or the folder `mtfl_faces` itself; see `find_data`. `mtfl_faces`
            holds either `training.txt`, `testing.txt` and the folders of images that these files name, as in the
            published archive; or `mtfl_train.npz` and `mtfl_test.npz` with the arrays `jpeg` (the bytes of all JPEG
            files, uint8), `offsets` (the first byte of each file, and the end of the last file) and `landmarks`
            (`[count, 5, 2]`, x and y in pixels).
        source: One of
            `"mtfl"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`. Nothing is downloaded.
            `"generated"`: drawn faces, see `generated_faces`.
            `"auto"`: MTFL if it is available. Otherwise the loader prints a line and draws faces.
        longest: Positive integer: larger images are shrunk, so that their longer side has this number of pixels.

    Raises:
        ValueError: An argument or a file is not as described.
        FileNotFoundError: `source` is `"mtfl"`, and there is no such folder.
    """
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    longest = positive(longest, "longest")
    folder = None if source == "generated" else find_data("mtfl_faces", data_dir)
    if folder is not None:
        return Faces(*_read(folder, split, longest), "mtfl")
    if source == "mtfl":
        raise FileNotFoundError("Expected mtfl_faces/ in `data_dir` or $KERAS_DYNFILTER_DATA. Received: no such folder")
    if source == "auto":
        print("No MTFL found: faces are drawn instead. See --data-dir.", flush=True)
    images, landmarks = generated_faces(SPLITS[split], seed=list(SPLITS).index(split))
    return Faces(list(images), landmarks, "generated")


def _read(folder: pathlib.Path, split: str, longest: int) -> tuple[list[np.ndarray], np.ndarray]:
    packed, listed = folder / f"mtfl_{split}.npz", folder / LISTS[split]
    expected = f"Expected {folder} to hold {listed.name} and its images, or {packed.name} with jpeg, offsets, landmarks"
    try:
        files, landmarks = _read_packed(packed) if packed.exists() else _read_listed(listed)
        if len(files) != len(landmarks) or landmarks.shape[1:] != (5, 2):
            raise ValueError(f"{len(files)} images, {landmarks.shape=}")
        images, factors = [], []
        for file in files:
            check_jpeg(file, "an image")
            image = tf.io.decode_jpeg(file, channels=3)
            factors.append(min(1.0, longest / max(image.shape)))
            images.append(_shrink(image, factors[-1]))
    except Exception as error:  # NumPy and the decoder raise many types for files that are missing or damaged
        raise ValueError(f"{expected}. Received: {error}") from error
    return images, (landmarks * np.array(factors)[:, None, None]).astype(np.float32)


def _read_packed(path: pathlib.Path) -> tuple[list[bytes], np.ndarray]:
    jpeg, offsets, landmarks = npz.read(path, ["jpeg", "offsets", "landmarks"]).values()
    ordered = offsets.ndim == 1 and np.issubdtype(offsets.dtype, np.integer) and np.all(offsets[1:] >= offsets[:-1])
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8 or not ordered or offsets[:1].tolist() < [0] or offsets[-1] > len(jpeg):
        raise ValueError(f"{jpeg.shape=}, {jpeg.dtype=}, and offsets that do not increase inside of it")
    return [jpeg[first:end].tobytes() for first, end in itertools.pairwise(offsets)], landmarks


def _read_listed(path: pathlib.Path) -> tuple[list[bytes], np.ndarray]:
    """Reads a published list. A line holds the name of an image, five x, five y, and values that are not used."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    outside = [line[0] for line in lines if archives.leaves_folder(line[0])]
    if outside:
        raise ValueError(f"the name {outside[0]!r}, which leaves the folder")
    files = [read_bytes(path.parent / line[0].replace("\\", "/")) for line in lines]
    landmarks = np.array([line[1:11] for line in lines], np.float64).reshape(-1, 2, 5)
    return files, landmarks.swapaxes(1, 2)


def _shrink(image: tf.Tensor, factor: float) -> np.ndarray:
    if factor == 1:
        return image.numpy()
    size = [round(factor * extent) for extent in image.shape[:2]]
    shrunk = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(shrunk, 0.0, 255.0)), tf.uint8).numpy()
