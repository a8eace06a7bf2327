# SPDX-License-Identifier: Apache-2.0
"""Small photographs of ten classes: CIFAR-10 where it can be had, else generated patterns."""

import keras
import numpy as np
import tensorflow as tf

from examples.experiments.data import digits
from examples.experiments.data.locate import find_data
from keras_dynfilter.ops.checks import choice, positive

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = 32
SPLITS = {"train": 4_000, "test": 1_000}  # with the number of images that are generated
SOURCES = ("auto", "cifar10", "generated")


def load_cifar10(split="train", data_dir=None, source="auto", return_source=False):
    """Loads CIFAR-10.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder with `cifar10/`, or this folder; see `find_data`. It holds mosaics `train_0.png`,
            `train_1.png`, ..., `test_0.png`, ...: any number of images each, tile beside tile, row by row; and
            `train_labels.npz`, `test_labels.npz` with an array `labels`, which may be longer than there are images.
        source: `"cifar10"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`, else from Keras, which downloads it once.
            `"generated"`: patterns, nothing is downloaded; see `generated_images`. `"auto"`: CIFAR-10 if it can be had,
            else patterns; a line is printed then.
        return_source: Whether to return too which images these are, which `"auto"` leaves open.

    Returns:
        `(images, labels)`: `[count, 32, 32, 3]`, uint8, and `[count]`, int32, 0 to 9 in the order of `CLASSES`; with
        `return_source=True` also `"cifar10"` or `"generated"`.

    Raises:
        ValueError: `split` or `source` is none of the above, or the files are not as described.
        OSError: `source` is `"cifar10"` and Keras cannot download it.
    """
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    *loaded, source = _load(split, data_dir, source)
    return (*loaded, source) if return_source else tuple(loaded)


def _load(split, data_dir, source):
    if source != "generated":
        folder = find_data("cifar10", data_dir)
        if folder is not None:
            return *_read(folder, split), "cifar10"
        try:
            return *_from_keras(split), "cifar10"
        except OSError as error:
            if source == "cifar10":
                raise
            print(f"{error} Patterns are generated instead.", flush=True)
    return *generated_images(SPLITS[split], seed=list(SPLITS).index(split)), "generated"


def generated_images(count, classes=10, size=SIZE, seed=0):
    """Images to try a classifier with: noisy stripes, whose direction and colours tell the class.

    Args:
        count: Positive integer, number of images.
        classes: Positive integer.
        size: Positive integer, rows and columns.
        seed: Integer seed. Classes look the same for all seeds.

    Returns:
        `(images, labels)`: `[count, size, size, 3]`, uint8, and `[count]`, int32; all classes are equally frequent.

    Raises:
        ValueError: An argument is not as described.
    """
    count, classes, size = positive(count, "count"), positive(classes, "classes"), positive(size, "size")
    looks, rng = np.random.default_rng(0), np.random.default_rng(seed)
    colours = looks.uniform(-1, 1, (classes, 3))
    labels = rng.permutation(np.arange(count) % classes).astype(np.int32)
    angles = np.pi * (labels + rng.uniform(-0.3, 0.3, count)) / classes
    across = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    waves = rng.uniform(3, 5, count) * 2 * np.pi / size
    images = np.empty([count, size, size, 3], np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for index, image in enumerate(images):
        place = across[index, 0] * rows + across[index, 1] * columns
        stripes = np.sin(waves[index] * place + rng.uniform(0, 2 * np.pi))[..., None]
        values = 0.5 + 0.25 * stripes * colours[labels[index]] + rng.normal(0, 0.15, image.shape)
        image[:] = np.clip(255 * values, 0, 255)
    return images, labels


def _read(folder, split):
    expected = f"Expected {folder} to hold mosaics {split}_0.png, ... of 32 x 32 colour tiles, and {split}_labels.npz"
    try:
        files = sorted(folder.glob(f"{split}_*.png"), key=lambda file: int(file.stem.split("_")[-1]))
        images = np.concatenate([_tiles(tf.io.decode_png(file.read_bytes(), channels=3).numpy()) for file in files])
        with np.load(folder / f"{split}_labels.npz") as content:
            labels = content["labels"]
    except Exception as error:  # NumPy and the decoder have many for files that are missing or damaged
        raise ValueError(f"{expected}. Received: {error}") from error
    if labels.ndim != 1 or len(labels) < len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{expected} with a label for each of the {len(images)} tiles. Received: {labels.shape=}")
    labels = labels[: len(images)].astype(np.int32)
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"{expected} with labels from 0 to 9. Received: {labels.min()} to {labels.max()}")
    return images, labels


def _tiles(mosaic):
    """`[rows * 32, columns * 32, 3]` to `[rows * columns, 32, 32, 3]`."""
    rows, columns = (extent // SIZE for extent in mosaic.shape[:2])
    return mosaic.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)


def _from_keras(split):
    try:
        with digits.timeout(digits.PATIENCE):
            train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a plain one where a download fails
        raise OSError(f"CIFAR-10 is neither here nor to be downloaded ({error}).") from error
    images, labels = train if split == "train" else test
    return images, labels[:, 0].astype(np.int32)
