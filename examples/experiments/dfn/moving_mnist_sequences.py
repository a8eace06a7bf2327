# SPDX-License-Identifier: Apache-2.0
"""Provides the sequences that networks for moving MNIST are tested on, generated or stored, in batches."""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np

from examples.experiments import data
from keras_dynfilter.untrusted import archives, npz

FULL = 64  # rows and columns of the paper's frames, in which digits of 28 pixels move 3.6 pixels per frame
PUBLISHED = "moving_mnist/mnist_test_seq.npy"
FILE = "moving_mnist/generated_test_300.npz"
TEST_SEED = 2**31  # above the largest seed of a training
BATCH = 50
COUNT = 300  # test sequences, unless the options set another number


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Averages areas of `[..., height, width]`, uint8, so that 64 x 64 become `size` x `size`; float32 in [0, 1]."""
    factor = FULL // size
    *axes, height, width = images.shape
    areas = images.reshape(*axes, height // factor, factor, width // factor, factor)
    return areas.mean(axis=(-3, -1), dtype=np.float32) / np.float32(255)


class GeneratedSequences:
    """Generates sequences in batches `(inputs, targets)`. Every iteration yields the same sequences.

    Args:
        args: The options.
        digits: Digits, `[count, height, width]`, float32.
        count: Number of sequences.
        digits_per_sequence: Number of digits in each sequence.
    """

    def __init__(self, args: argparse.Namespace, digits: np.ndarray, count: int, digits_per_sequence: int = 2):
        self.count, self.inputs = count, args.test_frames[0]
        self.batches = data.moving_digits(
            digits,
            BATCH,
            -(-count // BATCH),
            seed=TEST_SEED,
            frames=sum(args.test_frames),
            digits_per_sequence=digits_per_sequence,
            size=args.size,
        )

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first, frames in zip(range(0, self.count, BATCH), self.batches.as_numpy_iterator()):
            frames = frames[: self.count - first]
            yield frames[:, : self.inputs], frames[:, self.inputs :]


class TooShort(ValueError):
    """Reports stored sequences that have fewer frames than the options ask for."""


class StoredSequences:
    """Reads the sequences of a file in batches `(inputs, targets)`, shrunk to the size of the options.

    Args:
        args: The options.
        path: A `.npy` file of `[frames, sequences, 64, 64]`, like the published test set, or a `.npz` file with
            `sequences`, `[sequences, frames, 64, 64]`; uint8.

    Raises:
        TooShort: The sequences have too few frames.
        ValueError: The file holds no such sequences.
    """

    def __init__(self, args: argparse.Namespace, path: pathlib.Path):
        self.size, self.inputs, self.frames = args.size, args.test_frames[0], sum(args.test_frames)
        expected = f"Expected {path} to hold sequences of {self.frames} frames or more of 64 x 64, uint8"
        try:
            if path.suffix == ".npy":
                archives.check_regular(path)
                self.sequences = np.load(path, mmap_mode="r", allow_pickle=False).swapaxes(0, 1)
            else:
                self.sequences = npz.read(path, ["sequences"])["sequences"]
            shape, dtype = self.sequences.shape, self.sequences.dtype
        except Exception as error:  # NumPy raises many kinds of errors for damaged files
            raise ValueError(f"{expected}. Received: {error}") from error
        if len(shape) != 4 or not shape[0] or shape[2:] != (FULL, FULL) or dtype != np.uint8:
            raise ValueError(f"{expected}. Received: shape={shape}, dtype={dtype}")
        if shape[1] < self.frames:
            raise TooShort(f"{expected}. Received: {shape[1]} frames")

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(self.sequences), BATCH):
            frames = shrink(self.sequences[first : first + BATCH, : self.frames], self.size)[..., None]
            yield frames[:, : self.inputs], frames[:, self.inputs :]


def test_sets(args: argparse.Namespace, digits: np.ndarray) -> dict[str, GeneratedSequences | StoredSequences]:
    """Returns the sequences to test on, by name. Figures show the first set.

    Generated sequences come first if the stored sequences must be shrunk: shrinking places digits between pixels, where
    digits never are in the training. Generated sequences also replace stored sequences with too few frames.
    """
    path = data.find_data((PUBLISHED, FILE), args.data_dir)
    stored = None
    if path is not None and not args.test_sequences:
        try:
            stored = StoredSequences(args, path)
        except TooShort as error:
            print(f"{error}. Tests on generated sequences instead.")
    sets = {}
    if stored is None or args.size != FULL:
        sets["generated"] = GeneratedSequences(args, digits, args.test_sequences or COUNT)
    if stored is not None:
        name = "published" if path.suffix == ".npy" else "file"
        sets[name if args.size == FULL else f"{name}, shrunk"] = stored
    return sets
