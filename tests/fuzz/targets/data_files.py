# SPDX-License-Identifier: Apache-2.0
"""Reads damaged and hostile checkpoints, archives, lists, images and videos with the readers of the experiments."""

import functools
import hashlib
import io
import json
import pathlib
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from examples.experiments import data
from examples.experiments.core import checkpoint
from examples.experiments.core import files as core_files
from tests.fuzz import archives, edits
from tests.fuzz.failures import Failure, check_text

SCRATCH: Any = None
_RNG = np.random.default_rng(0)
_PIXELS = _RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8)
_FACE = _RNG.integers(0, 256, (24, 24, 3)).astype(np.uint8)


def setup() -> None:
    global SCRATCH
    import tensorflow as tf

    warnings.simplefilter("ignore")
    SCRATCH = tempfile.TemporaryDirectory(prefix="data-files-")
    tf.zeros([1])
    for reader in READERS.values():
        reader.original()


class Reader:
    """A reader of a file.

    Args:
        name: Where the file is in the folder of the data set.
        make: Returns the arrays of an archive by name, or the content of another file.
        read: Reads the file; its argument is the folder.
        others: Further files of the data set, by name.
    """

    def __init__(self, name: str, make: Callable, read: Callable, others: Callable = dict):
        self.name, self.make, self.read, self.others = name, make, read, others

    @functools.cache  # noqa: B019  readers live as long as the process
    def original(self) -> Any:
        return self.make()

    @property
    def is_archive(self) -> bool:
        return isinstance(self.original(), dict)


def _image(suffix: str, pixels: np.ndarray = _PIXELS, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix, **options)
    return file.getvalue()


def _video(name: str, codec: str, pixel_format: str) -> bytes:
    import imageio.v3 as imageio

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        with imageio.imopen(path, "w", plugin="pyav") as file:
            file.init_video_stream(codec, fps=5, pixel_format=pixel_format)
            for _ in range(3):
                file.write_frame(_PIXELS)
        return path.read_bytes()


def _checkpoint() -> dict:
    notes = np.array(json.dumps({"step": 7, "history": [1.0, 2.0]}))
    return {"notes": notes, "0": np.ones((3, 4), np.float32), "1": np.array(2.0)}


def _restore(folder: pathlib.Path) -> None:
    path = folder / "state"
    content = path.read_bytes()  # its checksum is right, so that all of the reader runs
    path.write_bytes(checkpoint.HEAD.format(hashlib.sha256(content).hexdigest()).encode() + content)
    arrays, _ = checkpoint.load(path)

    class Variable:
        dtype = "float32"

        def __init__(self, shape):
            self.shape = shape

        def assign(self, array):
            np.zeros(self.shape, np.float32)[...] = array

    checkpoint.restore([Variable((3, 4)), Variable(())], arrays, folder / "state")


def _mtfl() -> dict:
    files = [_image("jpeg", _FACE), _image("jpeg", _FACE[:20])]
    offsets = np.cumsum([0, *map(len, files)])
    return {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets, "landmarks": np.ones((2, 5, 2))}


def _mosaics() -> dict:
    return {"test_0.png": _image("png", _RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8))}


def _labels() -> dict:
    return {"labels": np.arange(4)}


def _cifar_labels_file() -> dict:
    return {"test_labels.npz": archives.write(_labels(), [])}


def _read_batches(folder: pathlib.Path) -> None:
    """Reads batches. TensorFlow raises an error of its own, which has to contain the sentence of the reader once."""
    import tensorflow as tf

    try:
        list(data.photograph_test_batches(*data.list_images(folder / "classes")[:2], 1, size=16))
    except tf.errors.InvalidArgumentError as error:
        if error.message.count("Expected ") != 1 or "Traceback" in error.message:
            raise Failure("unclear text", error.message) from error
        raise ValueError(error.message) from error


def _faces() -> dict:
    return {f"faces/{name}.jpg": _image("jpeg", _FACE) for name in "ab"}


_LIST = b"".join(b"faces\\%c.jpg 1 2 3 4 5 6 7 8 9 10 1 1 1 1\n" % name for name in b"ab")


def _settings() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "settings.json")
        core_files.write_record(path, {"seed": 0, "batch_size": 16, "data": {"digits": "5 x 28 x 28, uint8"}})
        return path.read_bytes()


_DIGITS = {"x_test": np.zeros((3, 28, 28), np.uint8), "y_test": np.arange(3, dtype=np.uint8)}

READERS = {
    "checkpoint": Reader("state", _checkpoint, _restore),
    "settings": Reader("settings.json", _settings, lambda folder: checkpoint.read_settings(folder / "settings.json")),
    "mnist": Reader("mnist/mnist.npz", lambda: _DIGITS, lambda folder: data.load_mnist("test", folder, "mnist")),
    "cifar10_labels": Reader(
        "cifar10/test_labels.npz",
        _labels,
        lambda folder: data.load_cifar10("test", folder, "cifar10"),
        lambda: {f"cifar10/{name}": content for name, content in _mosaics().items()},
    ),
    "mtfl_archive": Reader("mtfl_faces/mtfl_test.npz", _mtfl, lambda folder: data.load_mtfl("test", folder, "mtfl")),
    "mtfl_list": Reader(
        "mtfl_faces/testing.txt",
        lambda: _LIST,
        lambda folder: data.load_mtfl("test", folder, "mtfl"),
        lambda: {f"mtfl_faces/{name}": content for name, content in _faces().items()},
    ),
    "cifar10_mosaic": Reader(
        "cifar10/test_0.png",
        lambda: _mosaics()["test_0.png"],
        lambda folder: data.load_cifar10("test", folder, "cifar10"),
        lambda: {f"cifar10/{name}": content for name, content in _cifar_labels_file().items()},
    ),
    **{
        f"folder_{suffix}": Reader(
            f"images/1.{suffix}",
            functools.partial(_image, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)),
            lambda folder: data.load_folder(folder / "images", smallest=8),
        )
        for suffix in ("png", "jpg", "bmp", "tif")
    },
    "stereo": Reader(
        "left/1.png",
        functools.partial(_image, "png"),
        data.load_stereo,
        lambda: {"right/1.png": _image("png")},
    ),
    "batches": Reader(
        "classes/a/1.jpg",
        functools.partial(_image, "jpeg"),
        _read_batches,
    ),
    "video_mkv": Reader(
        "video.mkv",
        lambda: _video("v.mkv", "ffv1", "yuv420p"),
        lambda folder: data.load_video(folder / "video.mkv", limit=5),
    ),
    "video_mp4": Reader(
        "video.mp4",
        lambda: _video("v.mp4", "mpeg4", "yuv420p"),
        lambda folder: data.load_video(folder / "video.mp4", limit=5),
    ),
}
MODES = {
    "archives": ("checkpoint", "checkpoint", "settings", "mnist", "cifar10_labels", "mtfl_archive", "mtfl_list"),
    "images": tuple(name for name in READERS if name.startswith(("folder", "stereo", "video", "batches", "cifar10_m"))),
}


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    value: dict = {"reader": random.choice(MODES[mode])}
    reader = READERS[value["reader"]]
    if reader.is_archive:
        value["members"] = archives.draw(random, [*reader.original()])
    if not value.get("members") or random.random() < 0.3:
        value["bytes"] = edits.draw(random)
    return value


def run(value: dict) -> bool:
    reader = READERS[value["reader"]]
    content = archives.write(reader.original(), value.get("members", ())) if reader.is_archive else reader.original()
    folder = pathlib.Path(SCRATCH.name)
    shutil.rmtree(folder)
    files = {**reader.others(), reader.name: edits.apply(content, value.get("bytes", []))}
    for name, written in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(written)
    try:
        reader.read(folder)
    except ValueError as error:  # SetupError is a ValueError
        check_text(error, (folder.name, "folder", "path", "images", "state", "variables"))
        return False
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if left != set(files):
        raise Failure("wrong decision", f"the reader wrote files: {left - set(files)}")
    return True
