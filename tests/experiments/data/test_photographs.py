# SPDX-License-Identifier: Apache-2.0
"""Tests batches of photographs in folders, and their augmentations."""

import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.data import image_folder
from examples.experiments.data.rand_augment import OPERATIONS

PLAIN = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves values unchanged


def key(number):
    return tf.constant([7, number], tf.int64)


def write_jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(image, quality=98).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of grey photographs of different sizes. Every photograph has its own brightness."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(6):
        image = np.full((40 + number, 60 - number, 3), 20 + 40 * number, np.uint8)
        write_jpeg(folder / "cab"[number % 3] / f"{number}.jpg", image)
    (folder / "a" / "notes.txt").write_text("no image")
    return folder


def brightness(images):
    """Returns the numbers of the photographs, which their brightness encodes."""
    return np.rint((images.numpy().mean(axis=(1, 2, 3)) - 20) / 40).astype(int)


# Folders


def test_list_images(folder, tmp_path):
    files, labels, classes = data.list_images(folder)
    assert classes == ["a", "b", "c"] and labels.dtype == np.int32
    assert [(file[-7:], label) for file, label in zip(files, labels)] == [
        ("a/1.jpg", 0),
        ("a/4.jpg", 0),
        ("b/2.jpg", 1),
        ("b/5.jpg", 1),
        ("c/0.jpg", 2),
        ("c/3.jpg", 2),
    ]
    assert data.list_images(folder, ["c", "x", "b", "a"])[1].tolist() == [3, 3, 2, 2, 0, 0]
    with pytest.raises(ValueError, match=r"Expected `folder` to hold a folder of images .* unknown classes: \['c'\]"):
        data.list_images(folder, ["a", "b"])
    for empty in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"Received: folder='.*', 0 images"):
            data.list_images(empty)


def test_training_batches(folder):
    files, labels, _ = data.list_images(folder)
    options = dict(size=16, statistics=PLAIN, seed=3)
    batches = [*data.photograph_batches(files, labels, 4, 3, **options)]
    assert all(images.shape == (4, 16, 16, 3) and images.dtype == tf.float32 for images, _ in batches)
    numbers = np.concatenate([brightness(images) for images, _ in batches])
    assert sorted(numbers[:6]) == sorted(numbers[6:]) == list(range(6))  # two epochs
    expected = ["abc".index("cab"[number % 3]) for number in numbers]
    assert [int(label) for _, labels in batches for label in labels] == expected
    (images, _), *rest = data.photograph_batches(files, labels, 4, 3, start=2, **options)
    np.testing.assert_array_equal(images, batches[2][0])
    assert not rest
    ((jittered, _),) = data.photograph_batches(files, labels, 4, 3, start=2, color_jitter=0.4, **options)
    factors = jittered.numpy().mean(axis=(1, 2, 3)) / images.numpy().mean(axis=(1, 2, 3))
    assert factors.min() > 0.59 and factors.max() < 1.41 and np.abs(factors - 1).max() > 0.01
    with pytest.raises(ValueError, match="one label for each"):
        data.photograph_batches(files, labels[1:], 4, 3)


def test_test_batches(tmp_path):
    """Test images are the central square of the photographs, undistorted."""
    image = np.zeros((80, 100, 3), np.uint8)
    image[5:75, 15:85] = 200  # 0.875 of 80, in the middle
    write_jpeg(tmp_path / "a" / "1.jpg", image)
    files, _, _ = data.list_images(tmp_path)
    ((images, labels),) = data.photograph_test_batches(files * 2, [0, 5], 4, size=35, statistics=PLAIN)
    assert images.shape == (2, 35, 35, 3) and labels.numpy().tolist() == [0, 5]
    assert images.numpy()[:, 1:-1, 1:-1].min() > 190 and images.numpy()[:, [0, -1]].min() > 100


def test_random_crops():
    """Areas and aspect ratios agree with the recipe, and half of the crops are mirrored."""
    ramp = np.broadcast_to(np.linspace(0, 255, 120)[None, :, None], (90, 120, 3)).astype(np.float32)
    down = np.broadcast_to(np.linspace(0, 255, 90)[:, None, None], (90, 120, 3)).astype(np.float32)
    image = tf.constant(np.stack([ramp[..., 0], down[..., 0], down[..., 0]], axis=-1))
    crop = tf.function(
        lambda number: image_folder.random_crop(image, tf.stack([tf.constant(0, tf.int64), number]), 20, 0.08)
    )
    crops = np.stack([crop(tf.constant(number, tf.int64)) for number in range(200)])
    width = (crops[:, 10, -2, 0] - crops[:, 10, 1, 0]) * 120 / 255 / 17 * 20
    height = (crops[:, -2, 10, 1] - crops[:, 1, 10, 1]) * 90 / 255 / 17 * 20
    area = np.abs(width) * height / (90 * 120)
    assert 70 < (width < 0).sum() < 130
    assert 0.06 < area.min() < 0.15 and 0.85 < area.max() < 1.1
    assert (np.abs(width) / height).min() > 0.65 and (np.abs(width) / height).max() < 1.5


def test_color_jitter():
    image = tf.constant(np.random.default_rng(0).uniform(80, 120, (6, 5, 3)), tf.float32)
    np.testing.assert_allclose(image_folder.jitter_color(image, key(0), 0.0), image, rtol=1e-4)
    changed = image_folder.jitter_color(image, key(1), 0.4).numpy()
    assert changed.shape == image.shape and 0.6 * 100 - 1 < changed.mean() < 1.4 * 100 + 1
    assert np.abs(changed - image).max() > 2


def test_random_erasing():
    image = tf.fill([40, 30, 3], 9.0)
    erase = tf.function(
        lambda number: image_folder.erase_rectangles(image, tf.stack([tf.constant(1, tf.int64), number]), 0.4)
    )
    results = np.stack([erase(tf.constant(number, tf.int64)) for number in range(300)])
    changed = (results != 9.0).any(axis=-1)
    share = changed.mean(axis=(1, 2))
    assert 90 < (share > 0).sum() < 150  # 0.4 of 300
    assert 0.005 < share[share > 0].min() < 0.05 and 0.2 < share.max() < 0.4
    places = map(np.nonzero, changed[share > 0])
    # The changed pixels are one rectangle if there is a single rectangle, or one that covers the others.
    rectangular = np.mean([(np.ptp(rows) + 1) * (np.ptp(columns) + 1) == len(rows) for rows, columns in places])
    assert 0.2 < rectangular < 0.7
    noise = results[changed]
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert (image_folder.erase_rectangles(image, key(0), 0.0) == image).numpy().all()


# RandAugment


@pytest.fixture(scope="module")
def picture():
    values = np.random.default_rng(0).uniform(20, 180, (9, 11, 3))
    return tf.constant(np.rint(values), tf.float32)


@pytest.mark.parametrize(
    "name",
    ["rotate", "color", "contrast", "brightness", "sharpness"]
    + [f"{k} {a}" for k in ("shear", "translate") for a in "xy"],
)
def test_operations_of_strength_zero_change_nothing(picture, name):
    np.testing.assert_allclose(OPERATIONS[name](picture, tf.constant(0.0), tf.constant(0.0)), picture, atol=0.01)


def test_operations_of_pixels(picture):
    share, image = tf.constant(0.7), picture.numpy()
    apply = {name: OPERATIONS[name](picture, share, share).numpy() for name in OPERATIONS}
    np.testing.assert_array_equal(apply["invert"], 255 - image)
    np.testing.assert_array_equal(apply["posterize"], np.floor(image / 64) * 64)  # 2 of 8 bits are left
    np.testing.assert_array_equal(apply["solarize"], np.where(image < 256 - 179, image, 255 - image))
    np.testing.assert_array_equal(apply["solarize add"], np.where(image < 128, image + 77, image))
    np.testing.assert_allclose(apply["brightness"], np.minimum(image * 1.63, 255), rtol=1e-5)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    np.testing.assert_allclose(apply["auto contrast"], (image - low) / (high - low) * 255, rtol=1e-4)
    grey = np.rint(image @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(
        apply["color"], np.clip(grey[..., None] + 1.63 * (image - grey[..., None]), 0, 255), rtol=1e-3
    )
    np.testing.assert_allclose(
        apply["contrast"], np.clip(grey.mean() + 1.63 * (image - grey.mean()), 0, 255), rtol=1e-3
    )
    assert apply["sharpness"][1:-1, 1:-1].std() > image[1:-1, 1:-1].std()
    np.testing.assert_allclose(apply["sharpness"][0], image[0])


def test_equalize():
    """Equally frequent values are spread evenly from 0 to 255."""
    values = np.repeat(np.arange(60, 100), 2560).reshape(320, 320)[..., None].repeat(3, axis=-1)
    equalized = OPERATIONS["equalize"](tf.constant(values, tf.float32), None, None).numpy()
    levels = np.unique(equalized)
    assert len(levels) == 40 and (levels[0], levels[-1]) == (0, 255)
    assert set(np.diff(levels)) == {6, 7}
    flat = tf.fill([4, 4, 3], 77.0)
    np.testing.assert_array_equal(OPERATIONS["equalize"](flat, None, None), flat)


def test_operations_of_places(picture):
    half, image = tf.constant(0.5), picture.numpy()
    moved = OPERATIONS["translate x"](picture, half, tf.constant(2 / 0.45 / 11)).numpy()
    np.testing.assert_allclose(moved[:, :-2], image[:, 2:], atol=0.01)
    np.testing.assert_allclose(moved[:, -1], [[124, 116, 104]] * 9, atol=0.01)
    moved = OPERATIONS["translate y"](picture, half, tf.constant(-1 / 0.45 / 9)).numpy()
    np.testing.assert_allclose(moved[1:], image[:-1], atol=0.01)
    square = picture[:, 1:10]
    turned = OPERATIONS["rotate"](square, half, tf.constant(3.0)).numpy()  # 90 degrees
    candidates = [np.rot90(square, k) for k in (1, 3)]
    assert min(np.abs(turned - candidate)[1:-1, 1:-1].max() for candidate in candidates) < 0.1
    sheared = OPERATIONS["shear x"](picture, half, tf.constant(1 / 0.3)).numpy()
    np.testing.assert_allclose(sheared[3, :8], image[3, 3:], atol=0.01)


def test_rand_augment(picture):
    augment = tf.function(lambda number: data.rand_augment(picture, tf.stack([tf.constant(0, tf.int64), number]), 7.0))
    results = np.stack([augment(tf.constant(number, tf.int64)) for number in range(120)])
    same = (results == picture.numpy()).all(axis=(1, 2, 3)).sum()
    assert 15 < same < 60  # a quarter, and operations that change nothing here
    assert len({result.tobytes() for result in results}) > 50
    assert results.min() >= 0 and results.max() <= 255
    np.testing.assert_array_equal(augment(tf.constant(5, tf.int64)), results[5])
