# SPDX-License-Identifier: Apache-2.0
"""Test sequences of moving MNIST: generated, stored, published, refused."""

import numpy as np
import pytest

from examples.experiments.dfn import moving_mnist
from examples.experiments.dfn import moving_mnist_sequences as sequences

DIGITS = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
TEN = ["--input-frames", "10", "--output-frames", "10"]


def test_shrink_averages_areas():
    images = DIGITS[:2]
    np.testing.assert_allclose(sequences.shrink(images, 64), images / np.float32(255))
    small = sequences.shrink(images, 32)
    assert small.shape == (2, 14, 14) and small.dtype == np.float32
    assert small[1, 3, 5] == pytest.approx(images[1, 6:8, 10:12].mean() / 255, rel=1e-6)
    assert sequences.shrink(images, 16).shape == (2, 7, 7)


def test_generated_test_sequences():
    args = moving_mnist.parse([*TEN, "--size", "32", "--test-sequences", "70"])
    generated = sequences.GeneratedSequences(args, sequences.shrink(DIGITS, 32), 70)
    for _ in range(2):
        batches = list(generated)
        assert [inputs.shape for inputs, _ in batches] == [(50, 10, 32, 32, 1), (20, 10, 32, 32, 1)]
        assert [targets.shape for _, targets in batches] == [(50, 10, 32, 32, 1), (20, 10, 32, 32, 1)]
    np.testing.assert_array_equal(batches[1][0], list(generated)[1][0])
    assert sequences.TEST_SEED > 2**31 - 2  # above what --seed allows


def test_stored_test_sequences(tmp_path):
    path = tmp_path / "moving_mnist" / "generated_test_300.npz"
    path.parent.mkdir()
    stored = np.random.default_rng(0).integers(0, 256, (60, 20, 64, 64), np.uint8)
    np.savez(path, sequences=stored)
    arguments = [*TEN, "--data-dir", str(tmp_path)]
    full = sequences.test_sets(moving_mnist.parse([*arguments, "--size", "64"]), DIGITS)
    assert list(full) == ["file"]
    inputs, targets = (np.concatenate(parts) for parts in zip(*full["file"]))
    np.testing.assert_allclose(np.concatenate([inputs, targets], axis=1)[..., 0], stored / np.float32(255))
    small = sequences.test_sets(moving_mnist.parse([*arguments, "--size", "32"]), DIGITS)
    assert list(small) == ["generated", "file, shrunk"]  # the first one is drawn
    inputs, _ = next(iter(small["file, shrunk"]))
    assert inputs[3, 4, 5, 6, 0] == pytest.approx(stored[3, 4, 10:12, 12:14].mean() / 255, rel=1e-6)
    asked = moving_mnist.parse([*arguments, "--size", "64", "--test-sequences", "9"])
    assert {name: source.count for name, source in sequences.test_sets(asked, DIGITS).items()} == {"generated": 9}


@pytest.mark.parametrize("size", ["64", "32"])
def test_stored_test_sequences_that_are_too_short(tmp_path, capsys, size):
    (tmp_path / "moving_mnist").mkdir()
    np.savez(tmp_path / sequences.FILE, sequences=np.zeros((5, 20, 64, 64), np.uint8))
    args = moving_mnist.parse(["--size", size, "--test-frames", "10:20", "--data-dir", str(tmp_path)])
    sets = sequences.test_sets(args, DIGITS)
    assert {name: source.count for name, source in sets.items()} == {"generated": 300}
    printed = capsys.readouterr().out
    assert (
        "to hold sequences of 30 frames" in printed and "Received: 20 frames. Tests on generated sequences" in printed
    )


@pytest.mark.parametrize(
    "arrays, received",
    [
        ({"sequences": np.zeros((6, 12, 64, 64), np.uint8)}, "12 frames"),
        ({"sequences": np.zeros((6, 20, 64, 32), np.uint8)}, r"shape=\(6, 20, 64, 32\), dtype=uint8"),
        ({"sequences": np.zeros((0, 20, 64, 64), np.uint8)}, r"shape=\(0, 20, 64, 64\)"),
        ({"sequences": np.zeros((1, 20, 64, 64), np.float32)}, "dtype=float32"),
        ({"frames": np.zeros((6, 20, 64, 64), np.uint8)}, "sequences"),
        (b"PK damaged", ""),
        (b"", ""),
    ],
)
def test_damaged_and_other_files_are_refused(tmp_path, arrays, received):
    path = tmp_path / "test.npz"
    path.write_bytes(arrays) if isinstance(arrays, bytes) else np.savez(path, **arrays)
    args = moving_mnist.parse([*TEN, "--size", "64"])
    with pytest.raises(ValueError, match=rf"test\.npz to hold sequences of 20 frames .* Received: .*{received}"):
        sequences.StoredSequences(args, path)
    if isinstance(arrays, bytes):
        path.rename(tmp_path / "test.npy")
        with pytest.raises(ValueError, match=r"test\.npy to hold sequences of 20 frames"):
            sequences.StoredSequences(args, tmp_path / "test.npy")


def test_published_test_sequences(tmp_path):
    """The published file is stored frame by frame, and preferred to the generated file."""
    (tmp_path / "moving_mnist").mkdir()
    stored = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), np.uint8)
    np.save(tmp_path / "moving_mnist" / "mnist_test_seq.npy", stored)
    np.savez(tmp_path / sequences.FILE, sequences=np.zeros((5, 20, 64, 64), np.uint8))
    args = moving_mnist.parse(["--size", "64", "--test-frames", "4:3", "--data-dir", str(tmp_path)])
    ((inputs, targets),) = sequences.test_sets(args, DIGITS)["published"]
    assert inputs.shape == (3, 4, 64, 64, 1) and targets.shape == (3, 3, 64, 64, 1)
    np.testing.assert_allclose(targets[1, 2, ..., 0], stored[6, 1] / np.float32(255))
