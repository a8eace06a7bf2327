# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits: MNIST where it can be had, else digits that are drawn with fonts."""

import contextlib
import socket

import keras
import numpy as np

from examples.experiments.data.locate import find_data
from keras_dynfilter.ops.checks import choice

SPLITS = ("train", "test")
SOURCES = ("auto", "mnist", "rendered")
PATIENCE = 20  # seconds without an answer, after which a download counts as failed


def load_digits(split="train", data_dir=None, source="auto", return_source=False):
    """Loads images of digits.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder with `mnist/mnist.npz`, or with `mnist.npz`; see `find_data`.
        source: `"mnist"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`, else from Keras, which downloads it once (60,000
            training and 10,000 test digits). `"rendered"`: drawn with fonts and distorted at random, nothing is
            downloaded (20,000 and 4,000). `"auto"`: MNIST if it can be had, else rendered; a line is printed then.
        return_source: Whether to return too which digits these are, which `"auto"` leaves open.

    Returns:
        Digits, `[count, 28, 28]`, uint8, white on black; with `return_source=True` a pair of them and `"mnist"` or
        `"rendered"`.

    Raises:
        ValueError: `split` or `source` is none of the above, or a file does not hold MNIST.
        OSError: `source` is `"mnist"` and Keras cannot download it.
    """
    digits, _, source = _load(split, data_dir, source)
    return (digits, source) if return_source else digits


def load_mnist(split="train", data_dir=None, source="auto", return_source=False):
    """Loads images of digits, and which digit each is.

    Args:
        split: As for `load_digits`, as are the others.
        data_dir: See there.
        source: See there.
        return_source: See there.

    Returns:
        Images `[count, 28, 28, 1]`, uint8, white on black, and labels `[count]`, 0 to 9; with `return_source=True` also
        `"mnist"` or `"rendered"`.

    Raises:
        ValueError: As for `load_digits`, or a file holds no labels for its images.
        OSError: `source` is `"mnist"` and Keras cannot download it.
    """
    digits, labels, source = _load(split, data_dir, source, labelled=True)
    return (digits[..., None], labels, source) if return_source else (digits[..., None], labels)


def _load(split, data_dir, source, labelled=False):
    """Digits, labels (of files only if `labelled`), and where they are from."""
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    if source == "rendered":
        return *_rendered(split), "rendered"
    path = find_data("mnist/mnist.npz", data_dir) or find_data("mnist.npz", data_dir)
    if path is not None:
        return *_read(path, split, labelled), "mnist"
    try:
        return *_from_keras(split), "mnist"
    except OSError as error:
        if source == "mnist":
            raise
        print(f"{error} Digits are drawn with fonts instead.", flush=True)
        return *_rendered(split), "rendered"


def _rendered(split):
    from examples.experiments.data.rendered_digits import render_digits

    digits = render_digits(20_000, seed=0) if split == "train" else render_digits(4_000, seed=1)
    return digits, (np.arange(len(digits)) % 10).astype(np.uint8)  # they are drawn in turn


def _read(path, split, labelled):
    expected = f"Expected {path} to hold 'x_{split}', MNIST digits of shape (count, 28, 28), uint8"
    expected += f", and 'y_{split}', their labels" if labelled else ""
    try:
        with np.load(path) as arrays:
            digits = arrays[f"x_{split}"]
            labels = arrays[f"y_{split}"] if labelled else None
    except Exception as error:
        raise ValueError(f"{expected}. Received: {error}") from error
    if digits.ndim != 3 or digits.shape[1:] != (28, 28) or digits.dtype != np.uint8:
        raise ValueError(f"{expected}. Received: shape={digits.shape}, dtype={digits.dtype}")
    if labelled and labels.shape != digits.shape[:1]:
        raise ValueError(f"{expected}. Received: {len(digits)} digits, and labels of shape {labels.shape}")
    return digits, labels


def _from_keras(split):
    try:
        with timeout(PATIENCE):
            train, test = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a plain one where a download fails
        raise OSError(f"MNIST is neither here nor to be downloaded ({error}).") from error
    return train if split == "train" else test


@contextlib.contextmanager
def timeout(seconds):
    """A network that swallows packets must not stop a run for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
