# SPDX-License-Identifier: Apache-2.0
"""Tests the loaders of faces with landmarks (published and packed files), the drawn faces, and the alignment."""

import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.data import faces, mtfl

pytestmark = pytest.mark.legacy


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("KERAS_DYNFILTER_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data" / "mtfl_faces"
    (folder / "some").mkdir(parents=True)
    return folder


def jpeg(image):
    return tf.io.encode_jpeg(image, quality=95).numpy()


def test_packed_faces(folder):
    images, landmarks = data.generated_faces(3)
    files = [jpeg(image[:80]) for image in images]
    offsets = np.cumsum([0, *map(len, files)])
    content = dict(jpeg=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, landmarks=landmarks)
    np.savez(folder / "mtfl_train.npz", **content)
    for place in (folder, folder.parent):
        loaded, points, source = data.load_mtfl("train", place)
        assert source == "mtfl"
        for image, file in zip(loaded, files):
            np.testing.assert_array_equal(image, tf.io.decode_jpeg(file))
        assert points.dtype == np.float32 and loaded[0].shape == (80, 96, 3)
        np.testing.assert_array_equal(points, landmarks)
    np.savez(folder / "mtfl_train.npz", **{**content, "landmarks": landmarks[:2]})
    with pytest.raises(ValueError, match=r"or mtfl_train\.npz with .*Received: 3 images, landmarks.shape=\(2, 5, 2\)"):
        data.load_mtfl("train", folder)


def test_published_faces_are_resized(folder):
    image = np.zeros((60, 120, 3), np.uint8)
    image[20:28, 80:88] = 255
    for name in ("a.jpg", "b.jpg"):
        (folder / "some" / name).write_bytes(jpeg(image))
    across, down = "84 90 80 70 60", "24 30 40 50 50"
    lines = f" some\\a.jpg {across} {down} 1 2 2 3\n some\\b.jpg {across} {down} 1 2 2 3\n\n"
    (folder / "testing.txt").write_text(lines)
    loaded, points, _ = data.load_mtfl("test", folder, longest=60)
    assert [face.shape for face in loaded] == [(30, 60, 3)] * 2 and loaded[0].dtype == np.uint8
    assert points.tolist() == [[[42, 12], [45, 15], [40, 20], [35, 25], [30, 25]]] * 2
    rows, columns = np.nonzero(loaded[0][..., 0] > 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 13, 40, 43)
    assert data.load_mtfl("test", folder)[0][0].shape == (48, 96, 3)
    with pytest.raises(ValueError, match=r"Expected .*mtfl_faces to hold training\.txt and its images"):
        data.load_mtfl("train", folder)
    (folder / "some" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"to hold testing\.txt"):
        data.load_mtfl("test", folder)


def test_without_files(monkeypatch, capsys):
    monkeypatch.setattr(mtfl, "SPLITS", {"train": 4, "test": 2})
    images, landmarks, source = data.load_mtfl("test")
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "drawn" in printed
    expected = data.generated_faces(2, seed=1)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(landmarks, expected[1])
    assert source == "generated"
    assert len(data.load_mtfl(source="generated").images) == 4 and capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError, match="Expected mtfl_faces/ in `data_dir`"):
        data.load_mtfl(source="mtfl")


def test_drawn_faces():
    images, landmarks = data.generated_faces(30)
    assert images.shape == (30, 96, 96, 3) and images.dtype == np.uint8
    again, other = data.generated_faces(30)[0], data.generated_faces(30, seed=1)[0]
    np.testing.assert_array_equal(images, again)
    assert np.all(np.any(images != other, axis=(1, 2, 3)))
    columns, rows = np.moveaxis(landmarks.round().astype(int), -1, 0)
    colours = images[np.arange(30)[:, None], rows, columns].astype(int)
    assert np.mean(colours[:, :2].max(axis=-1) < 120) > 0.9  # eyes are dark
    row, column = (places[:, 3:].mean(axis=1).round().astype(int) for places in (rows, columns))
    mouths = images[np.arange(30), row, column]
    assert np.all(mouths[:, 0].astype(int) > mouths[:, 1:].max(axis=1).astype(int) + 10)  # lips are red


def white_spot(face):
    """Draws a black image with a white spot of 5 x 5 pixels at the left eye."""
    image = np.zeros((96, 96, 3), np.uint8)
    column, row = face[0]
    image[row - 2 : row + 3, column - 2 : column + 3] = 255
    return image


def centre_of_spot(image):
    weights = image[..., 0] / image[..., 0].sum()
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return [(weights * columns).sum(), (weights * rows).sum()]


def test_aligned_faces():
    pytest.importorskip("skimage")
    landmarks = np.array(
        [[(30, 40), (54, 44), (40, 55), (30, 66), (50, 68)], [(60, 20), (60, 50), (40, 35), (30, 22), (30, 48)]]
    )
    images = [white_spot(face) for face in landmarks]
    crops, points = data.align_faces(images, landmarks, size=48, eyes=16.0)
    assert crops.shape == (2, 48, 48, 3) and crops.dtype == np.uint8 and points.dtype == np.float32
    np.testing.assert_allclose(points[:, :2].mean(axis=(0, 1)), [23.5, 23.5 - 16 * 0.545], atol=1.5)
    assert np.all(points[:, 0, 0] < points[:, 1, 0]) and np.all(points[:, 3:, 1] > points[:, 2:3, 1])  # upright
    for crop, face in zip(crops, points):
        np.testing.assert_allclose(centre_of_spot(crop), face[0], atol=0.15)

    angles = np.array([30.0, -90.0])
    turned, turned_points = data.align_faces(images, landmarks, 48, 16.0, angles)
    for angle, before, after, crop in zip(np.radians(angles), points, turned_points, turned):
        x, y = (before - 23.5).T
        expected = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)
        np.testing.assert_allclose(after - 23.5, expected, atol=1e-3)
        np.testing.assert_allclose(centre_of_spot(crop), after[0], atol=0.15)


def test_the_mean_face_agrees_with_mtfl(real_data):
    pytest.importorskip("skimage")
    images, landmarks, _ = data.load_mtfl("train", real_data("mtfl_faces"), "mtfl")
    assert landmarks.shape == (len(images), 5, 2) and len(images) > 5_000
    crops, points = data.align_faces(images[:200], landmarks[:200])
    expected = 20 * (faces.MEAN_FACE - faces.MIDDLE) + 31.5
    np.testing.assert_allclose(points.mean(axis=0), expected, atol=0.5)
    assert crops.std(axis=0).min() > 20  # faces, not a constant image


def test_errors():
    pytest.importorskip("skimage")
    images, landmarks = data.generated_faces(2)
    with pytest.raises(ValueError, match="Expected `split` to be one of 'train', 'test'"):
        data.load_mtfl("all")
    with pytest.raises(ValueError, match="Expected `source` to be one of"):
        data.load_mtfl(source="web")
    with pytest.raises(ValueError, match=r"Expected `landmarks` to be \[count, 5, 2\].* 2 images"):
        data.align_faces(images, landmarks[:1])
    with pytest.raises(ValueError, match=r"angles.shape=\(3,\)"):
        data.align_faces(images, landmarks, angles=[1, 2, 3])
    with pytest.raises(ValueError, match="Expected the `landmarks` of a face to be apart"):
        data.align_faces(images, np.zeros((2, 5, 2)))
    with pytest.raises(ValueError, match="Expected `count` to be a positive integer"):
        data.generated_faces(0)
