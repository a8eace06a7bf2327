# SPDX-License-Identifier: Apache-2.0
"""Tests the loaders of videos (from files and folders) and of stereo pairs."""

import sys

import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.data import stereo

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 36, 64)).astype(np.uint8)


def write_images(folder, images, pattern="{}.png"):
    io = pytest.importorskip("skimage.io")
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        io.imsave(folder / pattern.format(index), image, check_contrast=False)
    return folder


@pytest.fixture
def video_file(tmp_path):
    """A video file with lossless compression."""
    pytest.importorskip("av")
    imageio = pytest.importorskip("imageio.v3")
    with imageio.imopen(tmp_path / "video.mkv", "w", plugin="pyav") as file:
        file.init_video_stream("ffv1", fps=5, pixel_format="gray")
        for frame in PIXELS:
            file.write_frame(frame, pixel_format="gray")
    return tmp_path / "video.mkv"


@pytest.fixture(params=["file", "folder"])
def source(request, tmp_path):
    """`PIXELS` as a file and as a folder, where 9.png must come before 10.png."""
    if request.param == "file":
        return request.getfixturevalue("video_file")
    return write_images(tmp_path / "frames", PIXELS)


def test_frames_agree_with_the_video(source):
    frames = data.load_video(source)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, PIXELS / 255, atol=1e-6)
    np.testing.assert_array_equal(data.load_video(str(source), stride=5), frames[::5])
    np.testing.assert_array_equal(data.load_video(source, limit=4), frames[:4])
    np.testing.assert_array_equal(data.load_video(source, stride=3, limit=2), frames[:6:3])
    np.testing.assert_array_equal(data.load_video(source, limit=100), frames)


def test_frames_are_resized_by_means(source):
    means = (PIXELS / 255).reshape(12, 9, 4, 16, 4).mean(axis=(2, 4))
    for size in (9, (9, 16), [9, 16]):
        frames = data.load_video(source, size)
        assert frames.dtype == np.float32
        np.testing.assert_allclose(frames, means, atol=1e-6)
    assert data.load_video(source, (10, 20)).shape == (12, 10, 20)


def test_errors_of_videos(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "notes.mp4").write_text("no video at all")
    (tmp_path / "empty").mkdir()
    for path, options, message in [
        ("none.mp4", {}, r"Expected `path` to be a video file or a folder of .*none\.mp4'"),
        ("notes.mp4", {}, r"Expected .*notes\.mp4 to be a video\. Received: .+"),
        ("empty", {}, r"Expected `path` to hold frames\. Received: path='.*empty'"),
        (".", {"size": 0}, r"Expected `size` to be a positive .* Received: size=0"),
        (".", {"size": (3, 4, 5)}, r"Expected `size` to be .* Received: size=\(3, 4, 5\)"),
        (".", {"stride": 0}, r"Expected `stride` to be a positive .* Received: stride=0"),
        (".", {"limit": 0.5}, r"Expected `limit` to be a positive .* Received: limit=0\.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            data.load_video(tmp_path / path, **options)
    write_images(tmp_path / "mixed", [PIXELS[0], PIXELS[1, :20]])
    with pytest.raises(ValueError, match=r"frames of .*mixed to be of one size\. Received: \(36, 64\) and \(20, 64\)"):
        data.load_video(tmp_path / "mixed")
    assert data.load_video(tmp_path / "mixed", size=(10, 10)).shape == (2, 10, 10)
    (tmp_path / "mixed" / "0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"Expected .*0\.png to be an image"):
        data.load_video(tmp_path / "mixed")


def test_a_truncated_video_is_an_error_or_shorter(video_file):
    whole = video_file.read_bytes()
    video_file.write_bytes(whole[: len(whole) // 2])
    try:
        frames = data.load_video(video_file)
    except ValueError as error:
        assert "to be a video" in str(error)
    else:  # the first half may be a complete video
        np.testing.assert_allclose(frames, PIXELS[: len(frames)] / 255, atol=1e-6)
        assert len(frames) < len(PIXELS)


def test_missing_decoder_is_named(tmp_path, monkeypatch):
    (tmp_path / "video.mp4").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"keras_dynfilter\[examples\]"):
        data.load_video(tmp_path / "video.mp4")
    frames = write_images(tmp_path / "frames", PIXELS[:1])
    monkeypatch.setitem(sys.modules, "skimage.transform", None)
    with pytest.raises(ImportError, match=r"Images need scikit-image.*keras_dynfilter\[examples\]"):
        data.load_video(frames, size=9)


def test_decoded_videos_agree_with_another_decoder(real_data):
    pytest.importorskip("av")
    with np.load(real_data("highway_video") / "frames_gray_128x72.npz") as arrays:
        expected = arrays["solidWhiteRight"] / 255
    frames = data.load_video(real_data("highway_video") / "solidWhiteRight.mp4", size=72, stride=20)
    assert frames.shape == (12, 72, 128)
    assert np.abs(frames - expected[::20]).mean() < 0.01  # the decoders convert colours to grey differently
    assert np.corrcoef(frames.ravel(), expected[::20].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("names", stereo.FOLDERS)
def test_stereo_pairs(tmp_path, names):
    for name, images in zip(names, (PIXELS, PIXELS[::-1])):
        write_images(tmp_path / name, images, "{:06}.png")
    left, right = data.load_stereo(tmp_path)
    np.testing.assert_allclose(left, PIXELS / 255, atol=1e-6)
    np.testing.assert_allclose(right, PIXELS[::-1] / 255, atol=1e-6)
    left, right = data.load_stereo(tmp_path, size=9)
    assert left.shape == right.shape == (12, 9, 16) and left.dtype == right.dtype == np.float32


def test_errors_of_stereo_pairs(tmp_path):
    with pytest.raises(
        ValueError, match=r"Expected `folder` to hold two folders: left and right; .*image_3.* Received"
    ):
        data.load_stereo(tmp_path / "nowhere")
    write_images(tmp_path / "left", PIXELS[:3])
    (tmp_path / "right").mkdir()
    with pytest.raises(ValueError, match=r"the same names\. Received: 3 and 0 images, unpaired: \['0', '1', '2'\]"):
        data.load_stereo(tmp_path)
    write_images(tmp_path / "right", PIXELS[:3, :20])
    with pytest.raises(ValueError, match=r"to be of one size\. Received: \[\(20, 64\), \(36, 64\)\]"):
        data.load_stereo(tmp_path)
    with pytest.raises(ValueError, match=r"Expected `size` to be .* Received: size=-1"):
        data.load_stereo(tmp_path, size=-1)
    for file in [*(tmp_path / "left").iterdir(), *(tmp_path / "right").iterdir()]:
        file.unlink()
    with pytest.raises(ValueError, match=r"the same names\. Received: 0 and 0 images"):
        data.load_stereo(tmp_path)


def test_real_stereo_pairs(real_data):
    left, right = data.load_stereo(real_data("stereo") / "karlsruhe_drive0023")
    assert left.shape == right.shape == (64, 186, 672)
    # A point is further left in the right image than in the left image.
    errors = [np.abs(left[:, :, 40:-40] - np.roll(right, d, axis=2)[:, :, 40:-40]).mean() for d in range(-20, 21)]
    assert 0 < np.argmin(errors) - 20 < 20
