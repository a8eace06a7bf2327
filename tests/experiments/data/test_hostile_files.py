# SPDX-License-Identifier: Apache-2.0
"""Every reader of data refuses files that declare absurd sizes, leave their folder, hold code, or would block it."""

import argparse
import hashlib
import io
import os
import struct
import tarfile
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import checkpoint
from examples.experiments.data import cifar10, downloads, image_limits, mnist, photographs
from examples.experiments.dfn.moving_mnist_sequences import StoredSequences
from keras_dynfilter.untrusted import memory
from tests.untrusted.test_readers import header, write_zip

pytestmark = pytest.mark.legacy
HUGE = header((2**31, 28, 28))  # 1.7 TB
OBJECTS = header((1,), "'|O'") + bytes(8)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height):
    """Returns a PNG image of a few bytes that declares a size."""
    beginning = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return image_limits.PNG + chunk(b"IHDR", beginning) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(width, height):
    """Returns a JPEG image of a few bytes whose header declares a size."""
    content = bytearray(tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def bmp(width, height):
    size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + size


def tiff(width, height):
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 8)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + bytes(4)


def signed(path):
    """Gives a state of a training the checksum that its reader expects first."""
    content = path.read_bytes()
    path.write_bytes(checkpoint.HEAD.format(hashlib.sha256(content).hexdigest()).encode() + content)
    return path


# Arrays


@pytest.mark.parametrize("content", [HUGE, OBJECTS, b"", b"text"])
@pytest.mark.parametrize("reader", ["mnist", "cifar10", "mtfl", "moving_mnist", "checkpoint"])
def test_archives_of_arrays(reader, content, tmp_path):
    def read():
        if reader == "mnist":
            write_zip(tmp_path / "mnist.npz", {"x_test.npy": content, "y_test.npy": content})
            return data.load_mnist("test", tmp_path / "mnist.npz")
        if reader == "cifar10":
            folder = tmp_path / "cifar10"
            folder.mkdir()
            (folder / "test_0.png").write_bytes(tf.io.encode_png(np.zeros((32, 32, 3), np.uint8)).numpy())
            write_zip(folder / "test_labels.npz", {"labels.npy": content})
            return data.load_cifar10("test", folder)
        if reader == "mtfl":
            folder = tmp_path / "mtfl_faces"
            folder.mkdir()
            members = {f"{name}.npy": content for name in ("jpeg", "offsets", "landmarks")}
            write_zip(folder / "mtfl_test.npz", members)
            return data.load_mtfl("test", folder)
        if reader == "moving_mnist":
            options = argparse.Namespace(size=64, test_frames=(2, 2))
            return StoredSequences(options, write_zip(tmp_path / "a.npz", {"sequences.npy": content}))
        return checkpoint.load(signed(write_zip(tmp_path / "state", {"notes.npy": content, "0.npy": content})))

    with pytest.raises(ValueError, match=r"(?s)Expected .* to hold .* Received: .+"):
        read()


def test_published_sequences(tmp_path):
    options = argparse.Namespace(size=64, test_frames=(2, 2))
    for content in (header((20, 2**31, 64, 64)), OBJECTS, b""):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected .*a\.npy to hold sequences .* Received: .+"):
            StoredSequences(options, tmp_path / "a.npy")
    (tmp_path / "a.npy").unlink()
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="no regular file"):
        StoredSequences(options, tmp_path / "a.npy")


def test_states_of_trainings(tmp_path):
    """Notes nested deeply, a missing array, a pipe, a folder."""
    path = tmp_path / "state"
    for arrays in ({"notes": np.array("[" * 100_000)}, {"notes": np.array("{}"), "7": np.ones(3)}, {"0": np.ones(3)}):
        with open(path, "wb") as file:
            np.savez(file, **arrays)
        with pytest.raises(checkpoint.SetupError, match=r"to hold the state of a training\. Received: (?!a damaged)"):
            checkpoint.load(signed(path))
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "missing"):
        with pytest.raises(checkpoint.SetupError, match=r"to hold the state of a training\. Received: .+"):
            checkpoint.load(tmp_path / name)


# Images and videos


@pytest.mark.parametrize("make, suffix", [(png, "png"), (jpeg, "jpg"), (bmp, "bmp"), (tiff, "tif")])
def test_images_that_declare_many_pixels(make, suffix, tmp_path):
    pytest.importorskip("skimage")
    path = tmp_path / f"image.{suffix}"
    # Pillow has limits of its own, which are higher.
    pixels = r"to have 1 to 67108864 pixels\. Received: \d+ x \d+|\d+ pixels\) exceeds limit"
    for size in ((60_000, 60_000), (65_000, 2_000), (65_000, 1_100)):
        path.write_bytes(make(*size))
        assert path.stat().st_size < 2000
        with pytest.raises(ValueError, match=pixels):
            photographs.read_grey(path)
        with pytest.raises(ValueError, match=pixels):
            data.load_folder(tmp_path)
        with pytest.raises(ValueError, match=pixels):
            data.load_video(tmp_path)
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        (tmp_path / side / path.name).write_bytes(make(60_000, 60_000))
    with pytest.raises(ValueError, match=pixels):
        data.load_stereo(tmp_path)


def test_other_formats_are_not_decoded(tmp_path):
    """The name of a file does not choose the decoder."""
    image = pytest.importorskip("PIL.Image")
    image.new("L", (64, 64)).save(tmp_path / "image.gif")
    (tmp_path / "image.gif").rename(tmp_path / "image.png")
    with pytest.raises(ValueError, match=r"Expected .*image\.png to be an image"):
        photographs.read_grey(tmp_path / "image.png")


def test_pipes_and_files_larger_than_memory_are_not_read(tmp_path):
    pytest.importorskip("skimage")
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    for name, text in (("pipe.png", "no regular file"), ("large.png", r"to need at most .* Received: 1\.1 TB")):
        with pytest.raises(ValueError, match=text):
            photographs.read_grey(tmp_path / name)
    pytest.importorskip("av")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match="no regular file"):
        data.load_video(tmp_path / "pipe.mp4")


def test_mosaics_that_declare_many_pixels(tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    np.savez(folder / "test_labels.npz", labels=np.zeros(1, np.int32))
    for content in (png(2**31 - 1, 2**31 - 1), png(100_000, 1_000), jpeg(32, 32), b""):
        (folder / "test_0.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"to hold mosaics test_0\.png.* Received: Expected .*test_0\.png to"):
            data.load_cifar10("test", folder)


@pytest.mark.parametrize("training", [False, True])
def test_photographs_in_batches(training, tmp_path):
    """The error names the file in one sentence, although a graph of TensorFlow reads it."""
    file = tmp_path / "image.png"
    whole = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).numpy()
    pixels = r"image\.png to have 1 to 67108864 pixels\. Received: \d+ x \d+"
    for content, message in (
        (png(40_000, 40_000), pixels),
        (png(2**31 - 1, 2**31 - 1), pixels),
        (jpeg(65_000, 65_000), pixels),
        (bmp(65_000, -65_000), pixels),
        (b"", r"image\.png to be a PNG, JPEG or BMP image\. Received: 0 bytes"),
        (b"GIF89a", r"image\.png to be a PNG, JPEG or BMP image\. Received: 6 bytes"),
        (whole[: len(whole) // 2], r"image\.png to be an image\. Received: .+"),
        (png(32, 32), r"image\.png to be an image\. Received: .+"),
    ):
        file.write_bytes(content)
        batches = (
            data.photograph_batches([str(file)], [0], 1, 1, size=8)
            if training
            else data.photograph_test_batches([str(file)], [0], 1, size=8)
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match=message) as caught:
            next(iter(batches))
        text = caught.value.message
        assert text.count("Expected ") == 1 and "Traceback" not in text and "__wrapped__DecodeImage" not in text
    file.write_bytes(whole)
    next(iter(data.photograph_test_batches([str(file)], [0], 1, size=8)))


def test_videos_that_declare_many_pixels(tmp_path, monkeypatch):
    pytest.importorskip("av")
    imageio = pytest.importorskip("imageio.v3")
    path = tmp_path / "video.mkv"
    with imageio.imopen(path, "w", plugin="pyav") as file:
        file.init_video_stream("ffv1", fps=5, pixel_format="gray")
        for _ in range(3):
            file.write_frame(np.zeros((64, 64), np.uint8), pixel_format="gray")
    assert data.load_video(path).shape == (3, 64, 64)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"to have 1 to 4000 pixels\. .* 64 x 64"):
        patch.setattr(image_limits, "MAX_PIXELS", 4000)
        data.load_video(path)
    with pytest.raises(ValueError, match=r"100 more frames of .* to need at most 1 MB of memory"):
        monkeypatch.setattr(memory, "available", lambda: 2_000_000)
        data.load_video(path)


# Lists


def write_list(folder, name):
    folder.mkdir(exist_ok=True)
    (folder / "testing.txt").write_text(f"{name} {' '.join(map(str, range(1, 11)))}\n")
    return folder


@pytest.mark.parametrize("name", ["../outside.jpg", "/outside.jpg", "..\\outside.jpg", "a/../../outside.jpg"])
def test_lists_that_leave_their_folder(name, tmp_path):
    (tmp_path / "outside.jpg").write_bytes(tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy())
    with pytest.raises(ValueError, match=r"Received: the name '.*outside\.jpg', which leaves the folder"):
        data.load_mtfl("test", write_list(tmp_path / "mtfl_faces", name))


def test_lists_of_hostile_images(tmp_path):
    folder = write_list(tmp_path / "mtfl_faces", "a.jpg")
    (folder / "a.jpg").write_bytes(jpeg(65_000, 65_000))
    with pytest.raises(ValueError, match=r"to have 1 to 67108864 pixels\. Received: 65000 x 65000"):
        data.load_mtfl("test", folder)
    (folder / "a.jpg").unlink()
    os.mkfifo(folder / "a.jpg")
    with pytest.raises(ValueError, match="no regular file"):
        data.load_mtfl("test", folder)


@pytest.mark.parametrize("offsets", [[0, 9, 0, 9], [-5, 9], [0, 10**12], [[0, 9]], [0.0, 9.0], []])
def test_offsets_of_packed_images(offsets, tmp_path):
    """Offsets that go back and forth would copy the same bytes many times."""
    folder = tmp_path / "mtfl_faces"
    folder.mkdir()
    arrays = {"jpeg": np.zeros(9, np.uint8), "offsets": np.array(offsets), "landmarks": np.zeros((1, 5, 2))}
    np.savez(folder / "mtfl_test.npz", **arrays)
    with pytest.raises(ValueError, match="offsets that do not increase"):
        data.load_mtfl("test", folder)


# Downloads


def archive(path, members):
    """Writes a .tar.gz file of (TarInfo or name, content)."""
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def records(seed):
    content = np.zeros((cifar10.RECORDS, cifar10.RECORD), np.uint8)
    content[-1] = np.random.default_rng(seed).integers(0, 10, cifar10.RECORD)
    return content


def test_the_binary_version_of_cifar10(tmp_path, monkeypatch):
    folder = "cifar-10-batches-bin/"
    batches = {name: records(seed) for seed, name in enumerate([*cifar10.BATCHES["train"], *cifar10.BATCHES["test"]])}
    path = archive(tmp_path / "a.tar.gz", [(folder + name, batch.tobytes()) for name, batch in batches.items()])
    monkeypatch.setattr(cifar10, "download", lambda file, name: path)
    monkeypatch.delenv("KERAS_DYNFILTER_DATA", raising=False)
    for split, count in (("train", 50_000), ("test", 10_000)):
        images, labels, source = data.load_cifar10(split, source="cifar10")
        assert images.shape == (count, 32, 32, 3) and labels.dtype == np.int32 and source == "cifar10"
        record = batches[cifar10.BATCHES[split][-1]][-1]
        assert labels[-1] == record[0]
        assert images[-1, 2, 5].tolist() == [record[1 + 1024 * channel + 2 * 32 + 5] for channel in range(3)]


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        [],
        [("test_batch.bin", b"short")],
        [(link("test_batch.bin", "/etc/passwd"), b"")],
        [("test_batch.bin", bytes(cifar10.RECORDS * cifar10.RECORD + 1))],
    ],
)
def test_damaged_versions_of_cifar10(members, tmp_path):
    path = archive(tmp_path / "a.tar.gz", members)
    with pytest.raises(ValueError, match=r"Expected .*a\.tar\.gz to hold test_batch\.bin of 10000 records"):
        cifar10._read_binary(path, "test")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"Expected .*a\.tar\.gz to hold test_batch\.bin of 10000 records"):
        cifar10._read_binary(path, "test")


@pytest.mark.parametrize("file", [mnist.MNIST, cifar10.CIFAR10])
def test_downloads_are_encrypted_and_have_checksums(file):
    assert file.url.startswith("https://") and len(file.sha256) == 64 and int(file.sha256, 16)


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch):
    """Also if the file is in the folder of Keras already."""
    (tmp_path / "source.bin").write_bytes(b"another content")
    file = downloads.Download((tmp_path / "source.bin").as_uri(), "0" * 64)
    get_file = keras.utils.get_file
    monkeypatch.setattr(
        keras.utils, "get_file", lambda *names, **options: get_file(*names, cache_dir=str(tmp_path), **options)
    )
    for _ in range(2):
        with pytest.raises(OSError, match=r"(?s)^Numbers is neither here nor to be downloaded .*file hash"):
            downloads.download(file, "Numbers")
