# SPDX-License-Identifier: Apache-2.0
"""Tests the loader of CIFAR-10, the generated images, and shuffled batches of images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.data import cifar10

pytestmark = pytest.mark.legacy
PLAIN = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves values unchanged


def mosaic(folder, name, images, columns):
    rows = images.reshape(-1, columns, 32, 32, 3).swapaxes(1, 2).reshape(-1, columns * 32, 3)
    (folder / name).write_bytes(tf.io.encode_png(rows).numpy())


@pytest.fixture
def folder(tmp_path):
    """Twelve training images in mosaics of 2 x 3, and twenty labels."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    mosaic(folder, "train_0.png", images[:6], 3)
    mosaic(folder, "train_1.png", images[6:], 3)
    np.savez(folder / "train_labels.npz", labels=np.arange(20, dtype=np.uint8) % 10)
    return folder, images


def test_mosaics(folder):
    path, images = folder
    loaded, labels, source = data.load_cifar10("train", path.parent)
    assert source == "cifar10"
    np.testing.assert_array_equal(loaded, images)
    assert labels.dtype == np.int32 and labels.tolist() == [*range(10), 0, 1]


def test_mosaics_in_the_order_of_their_numbers(folder):
    path, images = folder
    (path / "train_1.png").rename(path / "train_10.png")
    mosaic(path, "train_2.png", images[:6], 2)
    loaded = data.load_cifar10("train", path).images
    np.testing.assert_array_equal(loaded, np.concatenate([images[:6], images[:6], images[6:]]))


@pytest.mark.parametrize(
    "labels, received",
    [(np.arange(5), r"labels.shape=\(5,\)"), (np.full(12, 10), "10 to 10"), (np.zeros(12), r"labels.shape=\(12,\)")],
)
def test_wrong_labels(folder, labels, received):
    np.savez(folder[0] / "train_labels.npz", labels=labels)
    with pytest.raises(ValueError, match=f"Expected .* to hold mosaics train_0.png, .*Received: {received}"):
        data.load_cifar10("train", folder[0])
    with pytest.raises(ValueError, match=r"Expected .* to hold mosaics test_0\.png"):
        data.load_cifar10("test", folder[0])


def test_the_real_images(real_data):
    images, labels, _ = data.load_cifar10("test", real_data("cifar10"))
    assert images.shape == (len(labels), 32, 32, 3) and set(labels) == set(range(10))
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.02)


def test_download(monkeypatch, capsys):
    """tests/experiments/data/test_hostile_files.py reads an archive."""
    monkeypatch.delenv("KERAS_DYNFILTER_DATA", raising=False)

    def fail(*_, **__):
        raise Exception("no network")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    monkeypatch.setitem(cifar10.SPLITS, "test", 20)
    with pytest.raises(OSError, match="neither here nor to be downloaded"):
        data.load_cifar10("test", source="cifar10")
    images, _, source = data.load_cifar10("test")
    assert len(images) == 20 and source == "generated"
    assert "Patterns are generated instead" in capsys.readouterr().out
    with pytest.raises(ValueError, match="Expected `source` to be one of"):
        data.load_cifar10("test", source="mnist")


def test_generated_classes_can_be_told_apart():
    images, labels = data.generated_images(200, classes=4, size=16, seed=1)
    assert images.shape == (200, 16, 16, 3) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [50] * 4
    again, _ = data.generated_images(200, classes=4, size=16, seed=1)
    np.testing.assert_array_equal(images, again)
    # All images of a class have stripes of the same colours, so the covariances of their channels are alike.
    covariances = np.array([np.cov(image.reshape(-1, 3).T.astype(float))[np.triu_indices(3)] for image in images])
    means = np.stack([covariances[labels == label].mean(axis=0) for label in range(4)])
    nearest = np.square(covariances[:, None] - means).sum(axis=-1).argmin(axis=1)
    assert (nearest == labels).mean() > 0.7


def numbered(count, size=5):
    """Returns images and labels. A pixel holds the number of its image, its row and its column, counted from 1."""
    values = np.mgrid[1 : count + 1, 1 : size + 1, 1 : size + 1]
    return np.moveaxis(values, 0, -1).astype(np.uint8), np.arange(count) + 100


def batches(count=20, batch_size=6, steps=10, **arguments):
    images, labels = numbered(count)
    return data.image_batches(images, labels, batch_size, steps, statistics=PLAIN, **arguments)


def test_an_epoch_has_every_image_once():
    labels = np.concatenate([labels for _, labels in batches().as_numpy_iterator()])  # three epochs of 20
    epochs = labels.reshape(3, 20)
    for epoch in epochs:
        assert sorted(epoch) == list(range(100, 120))
    assert len({tuple(epoch) for epoch in [*epochs, range(100, 120)]}) == 4
    other = np.concatenate([labels for _, labels in batches(seed=1).as_numpy_iterator()])
    assert other.tolist() != labels.tolist()


def test_orders_are_well_mixed():
    """The order of an epoch correlates neither with the order of the images nor with the previous epoch."""
    count, epochs = 40, 60
    images, labels = np.zeros((count, 1, 1, 3), np.uint8), np.arange(count)
    dataset = data.image_batches(images, labels, count, epochs, pad=0)
    orders = np.stack([labels for _, labels in dataset.as_numpy_iterator()])
    correlations = [np.corrcoef(before, after)[0, 1] for before, after in zip([np.arange(count), *orders], orders)]
    assert np.abs(correlations).mean() < 0.25  # 0.13 by chance
    assert (orders == np.arange(count)).sum(axis=1).mean() < 2  # 1 by chance
    assert (np.diff(orders, axis=1) == 1).sum(axis=1).mean() < 2


def test_a_batch_may_hold_several_epochs():
    (_, labels), *_ = batches(count=4, batch_size=12, steps=1)
    assert np.bincount(labels.numpy() - 100).tolist() == [3] * 4


def test_a_step_depends_on_its_number_alone():
    whole = [*batches().as_numpy_iterator()]
    rest = [*batches(start=7).as_numpy_iterator()]
    assert len(whole) == 10 and len(rest) == 3
    for (images, labels), (others, other_labels) in zip(whole[7:], rest):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_images_are_moved_and_mirrored_with_their_label():
    moves, flips = set(), 0
    for images, labels in batches(batch_size=50, steps=8, pad=2).as_numpy_iterator():
        for image, label in zip(images, labels):
            inside = image[..., 0] > 0
            number, row, column = (np.rint(image[..., axis]).astype(int) for axis in range(3))
            assert set(number[inside]) == {label - 99}
            rows, columns = np.nonzero(inside)
            down = set(row[inside] - rows)
            flipped = np.median(np.diff(column[rows[0], inside[rows[0]]])) < 0
            across = set(column[inside] - (4 - columns if flipped else columns))
            assert len(down) == len(across) == 1  # all pixels move alike
            assert inside.sum() == (5 - abs(min(down) - 1)) * (5 - abs(min(across) - 1))  # zeros fill the rest
            moves.add((int(min(down)) - 1, int(min(across)) - 1))
            flips += flipped
    assert moves == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    assert 150 < flips < 250


def test_neither_moved_nor_mirrored():
    images, labels = next(iter(batches(pad=0, flip=False)))
    np.testing.assert_allclose(images, numbered(20)[0][labels.numpy() - 100], rtol=1e-6)


def test_normalized():
    images = np.array([[[[0, 51, 255]]]], np.uint8)
    statistics = ((0.5, 0.2, 0.0), (0.5, 0.1, 2.0))
    np.testing.assert_allclose(data.normalized(images, statistics)[0, 0, 0], [-1, 0, 0.5], atol=1e-6)
    values = data.normalized(np.full((1, 1, 3), 127.5, np.float32))
    np.testing.assert_allclose(values[0, 0], [0.0086 / 0.2470, 0.0178 / 0.2435, 0.0535 / 0.2616], rtol=1e-3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=np.zeros((2, 4, 4, 3))), "Expected `images` to be .* uint8"),
        (dict(labels=[1, 2, 3]), "Expected `images` to be .* `labels`"),
        (dict(batch_size=0), "Expected `batch_size`"),
        (dict(pad=-1), "Expected `pad` to be a non-negative integer. Received: pad=-1"),
        (dict(steps=-1), "Expected `steps`"),
    ],
)
def test_bad_arguments(arguments, message):
    good = dict(images=np.zeros((2, 4, 4, 3), np.uint8), labels=[0, 1], batch_size=1, steps=1)
    with pytest.raises(ValueError, match=message):
        data.image_batches(**{**good, **arguments})
