# SPDX-License-Identifier: Apache-2.0
"""MNIST with its labels."""

import keras
import numpy as np

from keras_dynfilter.data.digits import PATIENCE, timeout
from keras_dynfilter.data.find import find_data
from keras_dynfilter.ops.geometry import choice

SPLITS = ("train", "test")


def load_mnist(split="train", data_dir=None):
    """Loads MNIST: 60,000 digits to train on, 10,000 to test on, and which digit each is.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder with `mnist/mnist.npz`, or with `mnist.npz`; see `find_data`. Where there is none, Keras
            downloads the data once.

    Returns:
        Images `[count, 28, 28, 1]`, uint8, white on black, and labels `[count]`, uint8.

    Raises:
        ValueError: `split` is none of the above, or the file does not hold MNIST.
        OSError: MNIST is neither here nor to be downloaded.
    """
    choice(split, "split", SPLITS)
    path = find_data("mnist/mnist.npz", data_dir) or find_data("mnist.npz", data_dir)
    if path is None:
        images, labels = _downloaded(split)
    else:
        expected = (
            f"Expected {path} to hold 'x_{split}', digits of shape (count, 28, 28), and 'y_{split}', their labels"
        )
        try:
            with np.load(path) as arrays:
                images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        except Exception as error:
            raise ValueError(f"{expected}. Received: {error}") from error
        if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"{expected}. Received: {images.shape=}, {images.dtype=}, {labels.shape=}")
    return images[..., None], labels


def _downloaded(split):
    try:
        with timeout(PATIENCE):
            train, test = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a plain one where a download fails
        raise OSError(f"MNIST is neither here nor to be downloaded ({error}).") from error
    return train if split == "train" else test
