# SPDX-License-Identifier: Apache-2.0
"""Loads CIFAR-10, or generates striped images of ten classes if CIFAR-10 is not available."""

import os
import pathlib
import tarfile
import zlib

import numpy as np
import tensorflow as tf

from examples.experiments.data.downloads import Download, download
from examples.experiments.data.image_limits import check_png, read_bytes
from examples.experiments.data.labelled_images import LabelledImages
from examples.experiments.data.locate import find_data
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.untrusted import npz

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = 32
SPLITS = {"train": 4_000, "test": 1_000}  # and the number of images that are generated for each
SOURCES = ("auto", "cifar10", "generated")
# The version for Python is pickled, and to unpickle a file is to run it. The binary version holds the same images.
CIFAR10 = Download(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
RECORDS, RECORD = 10_000, 1 + 3 * SIZE * SIZE  # of each batch: a label, then red, green and blue


def load_cifar10(
    split: str = "train", data_dir: str | os.PathLike | None = None, source: str = "auto"
) -> LabelledImages:
    """Loads CIFAR-10.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder that contains `cifar10`, or the folder `cifar10` itself; see `find_data`. `cifar10` holds
            mosaics `train_0.png`, `train_1.png`, ..., `test_0.png`, ..., each with any number of images as tiles, row
            by row; and `train_labels.npz`, `test_labels.npz` with an array `labels`, at least one label per image.
        source: One of
            `"cifar10"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`; if it is in neither, it is downloaded once.
            `"generated"`: striped images, see `generated_images`. Nothing is downloaded.
            `"auto"`: CIFAR-10 if it is available. Otherwise the loader prints a line and generates images.

    Returns:
        `LabelledImages`: images `[count, 32, 32, 3]`; labels from 0 to 9, int32, in the order of `CLASSES`; and the
        source, `"cifar10"` or `"generated"`.

    Raises:
        ValueError: `split` or `source` is not one of these values, or the files are not as described.
        OSError: `source` is `"cifar10"` and it cannot be downloaded.
    """
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    if source != "generated":
        folder = find_data("cifar10", data_dir)
        if folder is not None:
            return LabelledImages(*_read(folder, split), "cifar10")
        try:
            path = download(CIFAR10, "CIFAR-10")
        except OSError as error:
            if source == "cifar10":
                raise
            print(f"{error} Patterns are generated instead.", flush=True)
        else:
            return LabelledImages(*_read_binary(path, split), "cifar10")
    return LabelledImages(*generated_images(SPLITS[split], seed=list(SPLITS).index(split)), "generated")


def generated_images(count: int, classes: int = 10, size: int = SIZE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generates images for trials of a classifier: noisy stripes whose direction and colours depend on the class.

    Args:
        count: Positive integer, number of images.
        classes: Positive integer.
        size: Positive integer, rows and columns.
        seed: Integer seed. A class looks the same for all seeds.

    Returns:
        `(images, labels)`: `[count, size, size, 3]`, uint8, and `[count]`, int32. All classes are equally frequent.

    Raises:
        ValueError: An argument is not as described.
    """
    count, classes, size = positive(count, "count"), positive(classes, "classes"), positive(size, "size")
    class_rng, image_rng = np.random.default_rng(0), np.random.default_rng(seed)
    colours = class_rng.uniform(-1, 1, (classes, 3))
    labels = image_rng.permutation(np.arange(count) % classes).astype(np.int32)
    angles = np.pi * (labels + image_rng.uniform(-0.3, 0.3, count)) / classes
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    frequencies = image_rng.uniform(3, 5, count) * 2 * np.pi / size
    images = np.empty([count, size, size, 3], np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for index, image in enumerate(images):
        position = directions[index, 0] * rows + directions[index, 1] * columns
        stripes = np.sin(frequencies[index] * position + image_rng.uniform(0, 2 * np.pi))[..., None]
        values = 0.5 + 0.25 * stripes * colours[labels[index]] + image_rng.normal(0, 0.15, image.shape)
        image[:] = np.clip(255 * values, 0, 255)
    return images, labels


def _read(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    expected = f"Expected {folder} to hold mosaics {split}_0.png, ... of 32 x 32 colour tiles, and {split}_labels.npz"
    try:
        files = sorted(folder.glob(f"{split}_*.png"), key=lambda file: int(file.stem.split("_")[-1]))
        images = np.concatenate([_tiles(_decoded(file)) for file in files])
        labels = npz.read(folder / f"{split}_labels.npz", ["labels"])["labels"]
    except Exception as error:  # NumPy and the decoder raise many types for files that are missing or damaged
        raise ValueError(f"{expected}. Received: {error}") from error
    if labels.ndim != 1 or len(labels) < len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{expected} with a label for each of the {len(images)} tiles. Received: {labels.shape=}")
    labels = labels[: len(images)].astype(np.int32)
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"{expected} with labels from 0 to 9. Received: {labels.min()} to {labels.max()}")
    return images, labels


def _decoded(file: pathlib.Path) -> np.ndarray:
    content = read_bytes(file)
    check_png(content, file)
    return tf.io.decode_png(content, channels=3).numpy()


def _read_binary(path: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the published archive. Nothing is unpacked to the disk, and only the named members are read."""
    expected = f"Expected {path} to hold {', '.join(BATCHES[split])} of {RECORDS} records of {RECORD} bytes"
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name).name
                if name in BATCHES[split] and name not in found and member.isfile():
                    if member.size != RECORDS * RECORD:
                        raise ValueError(f"{name} of {member.size} bytes")
                    content = archive.extractfile(member).read()  # type: ignore[union-attr]  # it is a file
                    found[name] = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD)
                if len(found) == len(BATCHES[split]):
                    break
        records = np.concatenate([found[name] for name in BATCHES[split]])
    except (EOFError, KeyError, OSError, ValueError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"{expected}. Received: {error}") from error
    images = records[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int32)


def _tiles(mosaic: np.ndarray) -> np.ndarray:
    """Cuts `[rows * 32, columns * 32, 3]` into `[rows * columns, 32, 32, 3]`."""
    rows, columns = (extent // SIZE for extent in mosaic.shape[:2])
    return mosaic.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
