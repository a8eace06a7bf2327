# SPDX-License-Identifier: Apache-2.0
"""Tests where data sets are located, which digits are loaded, and what drawn digits look like."""

import pathlib
import socket
import sys

import keras
import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.data import downloads, mnist, rendered_digits

pytestmark = pytest.mark.legacy
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
LABELS = np.array([7, 2, 1, 0, 4], np.uint8)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("KERAS_DYNFILTER_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    """A data folder with MNIST in it: three training and two test digits, labels of the training digits only."""
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    arrays = dict(x_train=IMAGES[:3], x_test=IMAGES[3:], y_train=LABELS[:3])
    np.savez(tmp_path / "data" / "mnist" / "mnist.npz", **arrays)
    return tmp_path / "data"


@pytest.fixture
def complete_folder(folder):
    """A data folder with MNIST in it: three training and two test digits, with all labels."""
    arrays = dict(x_train=IMAGES[:3], x_test=IMAGES[3:], y_train=LABELS[:3], y_test=LABELS[3:])
    np.savez(folder / "mnist" / "mnist.npz", **arrays)
    return folder


@pytest.fixture
def keras_download(monkeypatch, tmp_path):
    """Replaces the download of Keras by a file, or by an error if a test sets `answer["error"]`."""
    answer = {"error": None, "calls": []}
    np.savez(tmp_path / "kept.npz", x_train=IMAGES[:4], y_train=LABELS[:4], x_test=IMAGES[4:], y_test=LABELS[4:])

    def get_file(*arguments, **options):
        answer["calls"].append((arguments, options))
        if answer["error"] is not None:
            raise answer["error"]
        return str(tmp_path / "kept.npz")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    return answer


def test_data_are_found(tmp_path, monkeypatch):
    for name in ("given/stereo", "set/stereo", "set/video"):
        (tmp_path / name).mkdir(parents=True)
    given, environment = tmp_path / "given", tmp_path / "set"
    assert data.find_data("stereo") is None
    assert data.find_data("stereo", given) == given / "stereo"
    assert data.find_data("stereo", str(given / "stereo")) == given / "stereo"  # the folder itself
    assert data.find_data("video", given) is None
    monkeypatch.setenv("KERAS_DYNFILTER_DATA", str(environment))
    assert data.find_data("stereo", given) == given / "stereo"
    assert data.find_data("stereo") == environment / "stereo"
    assert data.find_data("video", given) == environment / "video"
    assert isinstance(data.find_data("video"), pathlib.Path)
    assert data.find_data("faces", given) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.find_data("stereo", "~/given") == given / "stereo"


def test_missing_folders_are_errors(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"Expected `data_dir` to be an existing folder. Received: data_dir='.*nowhere'"
    ):
        data.find_data("stereo", tmp_path / "nowhere")
    monkeypatch.setenv("KERAS_DYNFILTER_DATA", str(tmp_path / "lost"))
    with pytest.raises(
        ValueError, match=r"Expected `KERAS_DYNFILTER_DATA` to be .* Received: KERAS_DYNFILTER_DATA='.*lost'"
    ):
        data.find_data("stereo")
    monkeypatch.setenv("KERAS_DYNFILTER_DATA", "")
    assert data.find_data("stereo") is None


def check(loaded, expected, source):
    """Compares what a loader returned with `IMAGES` and `LABELS` at `expected`."""
    assert isinstance(loaded, data.LabelledImages) and loaded.source == source
    np.testing.assert_array_equal(loaded.images, IMAGES[expected, ..., None])
    np.testing.assert_array_equal(loaded.labels, LABELS[expected])


@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_digits_of_a_folder(complete_folder, source, monkeypatch):
    for path in (complete_folder, complete_folder / "mnist", complete_folder / "mnist" / "mnist.npz"):
        check(data.load_mnist("train", path, source), np.s_[:3], "mnist")
        check(data.load_mnist("test", path, source), np.s_[3:], "mnist")
    monkeypatch.setenv("KERAS_DYNFILTER_DATA", str(complete_folder))
    check(data.load_mnist(source=source), np.s_[:3], "mnist")


@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_digits_of_keras(source, keras_download, capsys):
    check(data.load_mnist("train", source=source), np.s_[:4], "mnist")
    check(data.load_mnist("test", source=source), np.s_[4:], "mnist")
    assert capsys.readouterr().out == ""
    checksum = {"file_hash": mnist.MNIST.sha256, "hash_algorithm": "sha256"}
    assert keras_download["calls"] == 2 * [(("mnist.npz", mnist.MNIST.url), checksum)]


def test_digits_without_network(keras_download, monkeypatch, capsys):
    keras_download["error"] = Exception("URL fetch failure: no route to host")  # the plain Exception that Keras raises
    drawn = IMAGES.repeat(5, axis=0)
    calls = []
    monkeypatch.setattr(rendered_digits, "render_digits", lambda count, seed: calls.append((count, seed)) or drawn)
    images, labels, source = data.load_mnist("test")
    assert source == "rendered" and images.shape == (25, 28, 28, 1)
    np.testing.assert_array_equal(labels, [*range(10), *range(10), *range(5)])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "no route to host" in printed and "drawn with fonts" in printed
    with pytest.raises(OSError, match=r"neither here nor to be downloaded .*no route to host"):
        data.load_mnist(source="mnist")
    assert data.load_mnist(source="rendered").source == "rendered" and capsys.readouterr().out == ""
    assert calls == [(4_000, 1), (20_000, 0)]


def test_labels_of_files_are_checked(folder):
    check(data.load_mnist("train", folder), np.s_[:3], "mnist")
    with pytest.raises(ValueError, match=r"mnist\.npz to hold 'x_test', .* 'y_test', their labels. Received: .*y_t"):
        data.load_mnist("test", folder)
    np.savez(folder / "mnist" / "mnist.npz", x_train=IMAGES, y_train=LABELS[:4])
    with pytest.raises(ValueError, match=r"Received: 5 digits, and labels of shape \(4,\)"):
        data.load_mnist("train", folder)


def test_downloads_have_a_timeout(monkeypatch):
    timeouts = []

    def get_file(*_, **__):
        timeouts.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    before = socket.getdefaulttimeout()
    with pytest.raises(OSError, match="timed out"):
        data.load_mnist(source="mnist")
    assert timeouts == [downloads.TIMEOUT] and socket.getdefaulttimeout() == before


def test_errors(folder):
    with pytest.raises(ValueError, match=r"Expected `split` to be one of 'train', 'test'. Received: split='valid'"):
        data.load_mnist("valid")
    with pytest.raises(ValueError, match=r"Expected `source` to be one of .* Received: source='web'"):
        data.load_mnist(source="web")
    with pytest.raises(ValueError, match=r"Expected `count` to be a positive integer. Received: count=0"):
        rendered_digits.render_digits(0)
    file = folder / "mnist" / "mnist.npz"
    np.savez(file, x_train=IMAGES.astype(np.float32), x_test=IMAGES[:, :20], y_train=LABELS, y_test=LABELS)
    with pytest.raises(ValueError, match=r"Expected .*mnist\.npz to hold 'x_train'.* Received: .*dtype=float32"):
        data.load_mnist("train", folder)
    with pytest.raises(ValueError, match=r"mnist\.npz to hold 'x_test'.* Received: shape=\(5, 20, 28\)"):
        data.load_mnist("test", folder)
    np.savez(file, x_test=IMAGES, y_train=LABELS)
    with pytest.raises(ValueError, match=r"mnist\.npz to hold 'x_train'.* Received: .*x_train"):
        data.load_mnist("train", folder)
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"mnist\.npz to hold 'x_train'"):
        data.load_mnist("train", folder)


def test_rendered_digits_look_like_digits(real_data):
    pytest.importorskip("matplotlib")
    drawn = rendered_digits.render_digits(2000)
    assert drawn.shape == (2000, 28, 28) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, rendered_digits.render_digits(2000))
    other = rendered_digits.render_digits(2000, seed=1)
    assert np.all(np.any(drawn != other, axis=(1, 2)))
    assert len(np.unique(drawn, axis=0)) == 2000  # no two alike
    border = np.concatenate([drawn[:, (0, -1)], drawn[:, :, (0, -1)].swapaxes(1, 2)], axis=1)
    assert np.mean(border.max(axis=(1, 2)) > 0) < 0.01  # hardly any digit is cut off
    assert np.all(drawn.max(axis=(1, 2)) == 255)
    # Most digits are nearest to the mean of the same digit in other drawings.
    drawn, other = (images.reshape(-1, 10, 784).astype(np.float32) for images in (drawn, other))
    means = drawn.mean(axis=0)
    nearest = ((other[:, :, None] - means) ** 2).sum(axis=-1).argmin(axis=-1)
    assert np.mean(nearest == np.arange(10)) > 0.7

    digits = data.load_mnist("test", real_data("mnist")).images
    assert 0.75 < drawn.mean() / digits.mean() < 1.33
    assert 0.75 < np.mean(drawn > 0) / np.mean(digits > 0) < 1.33


def test_missing_fonts_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"keras_dynfilter\[examples\]"):
        data.load_mnist(source="rendered")


def test_mnist_is_complete(real_data):
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels, source = data.load_mnist(split, real_data("mnist"))
        assert images.shape == (count, 28, 28, 1) and labels.shape == (count,) and source == "mnist"
