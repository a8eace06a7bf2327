# SPDX-License-Identifier: Apache-2.0
"""Tests the steerable filter against its formula, the triples for training, and the photographs and patches."""

import numpy as np
import pytest

from examples.experiments import data

signal = pytest.importorskip("scipy.signal")
ANGLES = np.deg2rad([0.0, 45.0, 90.0, 139.2, 180.0, 242.9])


def direct(images, angles):
    """Computes the zero-padded cross-correlation from the formula of the filter, without the package."""
    results = []
    for image, angle in zip(images[..., 0], angles):
        taps = [
            [-(np.cos(angle) * dx + np.sin(angle) * dy) * np.exp(-(dx**2 + dy**2) / 2) for dx in range(-4, 5)]
            for dy in range(-4, 5)
        ]
        results.append(signal.correlate2d(image, np.array(taps), mode="same"))
    return np.stack(results)[..., None]


def test_values_of_the_closed_form():
    filters = data.steerable_filter(ANGLES)
    assert filters.shape == (6, 9, 9)
    np.testing.assert_allclose(filters.sum(axis=(1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=(1, 2)), 1.252164, atol=5e-7)
    assert filters[0, 4, 5] == pytest.approx(-0.606531, abs=5e-7)
    assert filters[0, 4, 3] == pytest.approx(0.606531, abs=5e-7)
    np.testing.assert_allclose(filters[2], filters[0].T, atol=1e-15)  # 90 degrees: falls downwards
    np.testing.assert_allclose(filters[4], -filters[0], atol=1e-15)


@pytest.mark.parametrize("arguments", [{"size": 8}, {"size": -1}, {"size": 9.0}, {"size": True}, {"sigma": 0.0}])
def test_bad_arguments_of_the_closed_form(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Expected `{name}`.* Received: {name}="):
        data.steerable_filter(0.0, **arguments)


def test_filtered_is_a_zero_padded_cross_correlation():
    images = np.random.default_rng(0).random((6, 21, 16, 1))
    np.testing.assert_allclose(
        data.apply_steerable_filter(images, ANGLES), direct(images, ANGLES), rtol=1e-12, atol=1e-12
    )


IMAGES = np.zeros((2, 12, 12, 1), np.float32)
DATA_ERRORS = {
    "filtered rank": (
        lambda: data.apply_steerable_filter(IMAGES[0], [0.0]),
        r"`images` to have shape .*images\.shape=\(12, 12, 1\)",
    ),
    "filtered colour": (
        lambda: data.apply_steerable_filter(IMAGES.repeat(3, -1), [0.0] * 2),
        r"`images` to have .*\(2, 12, 12, 3\)",
    ),
    "filtered angles": (
        lambda: data.apply_steerable_filter(IMAGES, [0.0] * 3),
        r"Expected `angles` to be one per .*3 for 2 images",
    ),
    "filtered size": (
        lambda: data.apply_steerable_filter(IMAGES, [0.0] * 2, size=4),
        r"Expected `size` to be odd .*size=4",
    ),
    "triples empty": (lambda: data.steerable_triples(IMAGES[:0], 4, 1), r"Expected `images` to hold an image\..*\(0,"),
    "triples rank": (
        lambda: data.steerable_triples(IMAGES[0], 4, 1),
        r"Expected `images` to have shape .*\(12, 12, 1\)",
    ),
    "triples batch": (lambda: data.steerable_triples(IMAGES, 0, 1), r"`batch_size` to be a positive .*batch_size=0"),
    "patches count": (lambda: data.sample_patches(IMAGES[..., 0], -1, 8), r"Expected `count` to be a .*count=-1"),
    "patches float": (lambda: data.sample_patches(IMAGES[..., 0], 2.0, 8), r"Expected `count` to be a .*count=2\.0"),
    "patches size": (lambda: data.sample_patches(IMAGES[..., 0], 1, 0), r"Expected `size` to be a positive .*size=0"),
    "noise count": (lambda: data.noise_patches(-1), r"Expected `count` to be a non-negative integer\. .*count=-1"),
    "noise size": (lambda: data.noise_patches(1, size=-8), r"Expected `size` to be a positive integer\. .*size=-8"),
}


@pytest.mark.parametrize("make, message", DATA_ERRORS.values(), ids=DATA_ERRORS)
def test_data_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_patches_are_an_empty_array():
    assert data.noise_patches(0, size=8).shape == data.sample_patches(IMAGES[..., 0], 0, 8).shape == (0, 8, 8, 1)


def test_triples_hold_patches_angles_and_their_results():
    patches = data.noise_patches(20, size=24)
    batches = list(data.steerable_triples(patches, batch_size=16, steps=3, seed=5).as_numpy_iterator())
    assert len(batches) == 3
    angles = np.concatenate([inputs["angles"] for inputs, _ in batches])
    assert angles.shape == (48, 1) and angles.min() >= 0 and angles.max() < 2 * np.pi
    assert np.histogram(angles, bins=4, range=(0, 2 * np.pi))[0].min() > 0
    for inputs, results in batches:
        assert all(np.any(np.all(image == patches, axis=(1, 2, 3))) for image in inputs["images"])
        expected = direct(inputs["images"].astype(np.float64), inputs["angles"][:, 0].astype(np.float64))
        np.testing.assert_allclose(results, expected, rtol=1e-4, atol=2e-5)


def test_triples_depend_on_seed_and_step_only():
    patches = data.noise_patches(20, size=16)

    def flat(**arguments):
        batches = data.steerable_triples(patches, batch_size=4, steps=6, **arguments).as_numpy_iterator()
        return [np.concatenate([i["images"].ravel(), i["angles"].ravel(), r.ravel()]) for i, r in batches]

    whole = flat(seed=1)
    np.testing.assert_array_equal(whole, flat(seed=1))
    np.testing.assert_array_equal(whole[4:], flat(seed=1, start=4))
    for other in (flat(seed=2), whole[1:] + whole[:1]):
        assert all(np.any(a != b) for a, b in zip(whole, other))


def test_photographs_need_no_download(monkeypatch):
    pytest.importorskip("skimage")

    def refuse(*_):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    images = data.load_photographs()
    assert len(images) == 12
    for image in images:
        assert image.ndim == 2 and image.dtype == np.float32 and min(image.shape) >= 300
        assert 0 <= image.min() < image.max() <= 1
    assert len(data.load_photographs(iter(["camera", "coins"]))) == 2
    with pytest.raises(ValueError, match=r"Expected `names` .* Received: names=\['brain'\]"):
        data.load_photographs(["camera", "brain"])


def test_patches_are_standardised_and_repeatable():
    images = [np.random.default_rng(i).random((70 + i, 90), np.float32) for i in range(3)]
    patches = data.sample_patches(images, 7, seed=3)
    assert patches.shape == (7, 64, 64, 1) and patches.dtype == np.float32
    np.testing.assert_allclose(patches.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(patches.std(axis=(1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_array_equal(patches, data.sample_patches(images, 7, seed=3))
    assert np.any(patches != data.sample_patches(images, 7, seed=4))
    assert np.all(np.isfinite(data.sample_patches([np.full((64, 64), 0.5, np.float32)], 1)))
    with pytest.raises(ValueError, match=r"at least 64 x 64.*63"):
        data.sample_patches([np.zeros((63, 80), np.float32)], 1)


def test_folder_of_images(tmp_path):
    io = pytest.importorskip("skimage.io")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 4)).astype(np.uint8)
    for name, image in {"a.png": pixels[..., 0], "b.png": pixels[..., :3], "c.png": pixels}.items():
        io.imsave(tmp_path / name, image, check_contrast=False)
    io.imsave(tmp_path / "small.png", pixels[:20, :20, 0], check_contrast=False)
    (tmp_path / "notes.txt").write_text("not an image")
    images = data.load_folder(tmp_path)
    assert [image.shape for image in images] == [(80, 70)] * 3
    np.testing.assert_allclose(images[0], pixels[..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(images[1], images[2], atol=1e-6)

    (tmp_path / "broken.png").write_bytes(b"no PNG")
    with pytest.raises(ValueError, match=r"broken\.png to be an image"):
        data.load_folder(tmp_path)
    with pytest.raises(ValueError, match="Expected `path` to be an existing folder"):
        data.load_folder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Expected `path` to hold images"):
        data.load_folder(tmp_path / "empty")
