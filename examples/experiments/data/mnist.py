# SPDX-License-Identifier: Apache-2.0
"""Loads MNIST, or draws digits with fonts if MNIST is not available."""

import os
import pathlib

import numpy as np

from examples.experiments.data.downloads import Download, download
from examples.experiments.data.labelled_images import LabelledImages
from examples.experiments.data.locate import find_data
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.untrusted import npz

SPLITS = ("train", "test")
SOURCES = ("auto", "mnist", "rendered")
MNIST = Download(
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)


def load_mnist(split: str = "train", data_dir: str | os.PathLike | None = None, source: str = "auto") -> LabelledImages:
    """Loads images of digits and their labels.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder with `mnist/mnist.npz`, or with `mnist.npz`; see `find_data`.
        source: One of
            `"mnist"`: from `data_dir` or `$KERAS_DYNFILTER_DATA`; if it is in neither, it is downloaded once. There
            are 60,000 training and 10,000 test digits.
            `"rendered"`: drawn with fonts and distorted at random, 20,000 and 4,000 digits. Nothing is downloaded.
            `"auto"`: MNIST if it is available. Otherwise the loader prints a line and draws digits.

    Returns:
        `LabelledImages`: images `[count, 28, 28, 1]`, white on black; labels from 0 to 9; and the source, `"mnist"` or
        `"rendered"`.

    Raises:
        ValueError: `split` or `source` is not one of these values, or a file does not hold MNIST.
        OSError: `source` is `"mnist"` and it cannot be downloaded.
    """
    choice(split, "split", SPLITS)
    choice(source, "source", SOURCES)
    if source == "rendered":
        return _render(split)
    path = find_data(("mnist/mnist.npz", "mnist.npz"), data_dir)
    if path is not None:
        digits, labels = _read(path, split)
        return LabelledImages(digits[..., None], labels, "mnist")
    try:
        path = download(MNIST, "MNIST")
    except OSError as error:
        if source == "mnist":
            raise
        print(f"{error} Digits are drawn with fonts instead.", flush=True)
        return _render(split)
    digits, labels = _read(path, split)
    return LabelledImages(digits[..., None], labels, "mnist")


def _render(split: str) -> LabelledImages:
    from examples.experiments.data.rendered_digits import render_digits

    digits = render_digits(20_000, seed=0) if split == "train" else render_digits(4_000, seed=1)
    labels = (np.arange(len(digits)) % 10).astype(np.uint8)  # `render_digits` draws 0 to 9 in turn
    return LabelledImages(digits[..., None], labels, "rendered")


def _read(path: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    expected = f"Expected {path} to hold 'x_{split}', MNIST digits of shape (count, 28, 28), uint8"
    expected += f", and 'y_{split}', their labels"
    try:
        digits, labels = npz.read(path, [f"x_{split}", f"y_{split}"]).values()
    except (OSError, ValueError) as error:
        raise ValueError(f"{expected}. Received: {error}") from error
    if digits.ndim != 3 or digits.shape[1:] != (28, 28) or digits.dtype != np.uint8:
        raise ValueError(f"{expected}. Received: shape={digits.shape}, dtype={digits.dtype}")
    if labels.shape != digits.shape[:1]:
        raise ValueError(f"{expected}. Received: {len(digits)} digits, and labels of shape {labels.shape}")
    return digits, labels
