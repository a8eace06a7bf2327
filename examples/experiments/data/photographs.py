# SPDX-License-Identifier: Apache-2.0
"""Loads grey photographs and cuts patches out of them. The default photographs come with scikit-image."""

import importlib
import os
import pathlib
import re
import types
from collections.abc import Iterable
from io import BytesIO

import numpy as np

from examples.experiments.data.image_limits import check_pixels, read_bytes
from keras_dynfilter.ops.checks import integer, pair, positive

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "chelsea",
    "clock",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "rocket",
    "stereo_motorcycle",
    "camera",
)
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FLAT = 0.02  # patches with a smaller standard deviation count as flat
NUMBERS = re.compile(r"([0-9]+)")


def load_photographs(names: Iterable[str] = PHOTOGRAPHS) -> list[np.ndarray]:
    """Loads photographs that come with scikit-image.

    Args:
        names: Some of `PHOTOGRAPHS`.

    Returns:
        A list of images, `[height, width]`, float32, grey, in `[0, 1]`.

    Raises:
        ValueError: A name is not one of `PHOTOGRAPHS`.
        ImportError: scikit-image is not installed.
    """
    names = list(names)
    unknown = [name for name in names if name not in PHOTOGRAPHS]
    if unknown:
        raise ValueError(f"Expected `names` to be among {', '.join(PHOTOGRAPHS)}. Received: names={unknown}")
    data = skimage_module("data")
    images = []
    for name in names:
        image = getattr(data, name)()
        images.append(_grey(image[0] if isinstance(image, tuple) else image))  # the left view of a stereo pair
    return images


def load_folder(path: str | os.PathLike, smallest: int = 64) -> list[np.ndarray]:
    """Loads the images of a folder in the order of their names, where numbers are compared by value.

    Args:
        path: A folder with PNG, JPEG, BMP or TIFF files. Its subfolders are not searched.
        smallest: Images with fewer rows or columns are left out.

    Returns:
        A list of images, `[height, width]`, float32, grey, in `[0, 1]`.

    Raises:
        ValueError: The folder does not exist, holds no image that is large enough, or a file cannot be read.
        ImportError: scikit-image is not installed.
    """
    images = [image for image in map(read_grey, image_files(path)) if min(image.shape) >= smallest]
    if not images:
        expected = f"Expected `path` to hold images ({', '.join(SUFFIXES)}) of at least {smallest} x {smallest} pixels"
        raise ValueError(f"{expected}. Received: path={str(path)!r}")
    return images


def sample_patches(images: Iterable[np.ndarray], count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """Cuts patches at random places, in equal numbers from every image, and standardises them.

    Every patch gets mean 0 and standard deviation 1 (less if the patch is nearly flat). Photographs have far more
    energy in their mean and slow gradients than in fine detail. Without standardisation, a filter that is learned from
    photographs stays inaccurate in fine detail for a long time.

    Args:
        images: Images, `[height, width]`, of at least `size` rows and columns.
        count: Number of patches, 0 or more.
        size: Positive integer, rows and columns of a patch.
        seed: Integer seed.

    Returns:
        Patches, `[count, size, size, 1]`, float32.

    Raises:
        ValueError: There is no image, an image is smaller than `size`, or `count` or `size` is not as described.
    """
    _check_sizes(count, size)
    images = list(images)
    if not images or any(min(image.shape) < size for image in images):
        shapes = [image.shape for image in images]
        raise ValueError(f"Expected `images` to be images of at least {size} x {size}. Received: shapes={shapes}")
    rng = np.random.default_rng(seed)
    patches = np.empty([count, size, size, 1], np.float32)
    for index, patch in enumerate(patches):
        image = images[index % len(images)]
        row, column = (rng.integers(0, extent - size + 1) for extent in image.shape)
        patch[..., 0] = image[row : row + size, column : column + size]
    return standardize(patches)


def noise_patches(count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """Generates standardised patches of uniform noise, a stand-in for photographs.

    Args:
        count: Number of patches, 0 or more.
        size: Positive integer, rows and columns of a patch.
        seed: Integer seed.

    Returns:
        Patches, `[count, size, size, 1]`, float32.

    Raises:
        ValueError: `count` or `size` is not as described.
    """
    _check_sizes(count, size)
    return standardize(np.random.default_rng(seed).random([count, size, size, 1], np.float32))


def image_files(path: str | os.PathLike) -> list[pathlib.Path]:
    """Lists the image files of a folder by name, where numbers are compared by value: 9.png comes before 10.png."""
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise ValueError(f"Expected `path` to be an existing folder. Received: path={str(path)!r}")
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    return sorted(files, key=lambda file: [int(part) if part.isdigit() else part for part in NUMBERS.split(file.name)])


def read_grey(file: pathlib.Path) -> np.ndarray:
    """Reads an image file as `[height, width]`, float32, in `[0, 1]`."""
    io = skimage_module("io")
    try:
        from PIL import Image  # scikit-image needs it, too

        content = read_bytes(file)  # a decoder of bytes that fails leaves no file open
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            check_pixels(image.height, image.width, file)
        return _grey(io.imread(BytesIO(content)))
    except Exception as error:  # decoders raise many types; the error text names the file
        raise ValueError(f"Expected {file} to be an image. Received: {error}") from error


def resized(image: np.ndarray, size: int | tuple[int, int] | None) -> np.ndarray:
    """Resizes an image by averaging over areas.

    Args:
        image: `[height, width]`, float32.
        size: None: the image is returned unchanged. An integer: number of rows; the number of columns keeps the aspect
            ratio. A pair: rows and columns.
    """
    if size is None:
        return image
    rows, columns = size if not integer(size) else (size, max(1, round(size * image.shape[1] / image.shape[0])))
    return skimage_module("transform").resize_local_mean(image, (rows, columns)).astype(np.float32)


def check_size(size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    """Returns `size` if it is None, a positive integer or a pair of positive integers."""
    return size if size is None or (integer(size) and size >= 1) else pair(size, "size")


def standardize(images: np.ndarray) -> np.ndarray:
    """Scales images `[count, height, width, 1]` to mean 0 and standard deviation 1 each; nearly flat images less."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), FLAT)


def _check_sizes(count, size):
    if not integer(count) or count < 0:
        raise ValueError(f"Expected `count` to be a non-negative integer. Received: count={count!r}")
    positive(size, "size")


def _grey(image):
    """Converts an image of scikit-image (integers or floats; grey, RGB or RGBA) to `[height, width]` in `[0, 1]`."""
    util, color = skimage_module("util"), skimage_module("color")
    image = util.img_as_float32(image)
    if image.ndim == 3 and image.shape[-1] == 2:  # grey and opacity
        image = image[..., 0]
    if image.ndim == 3:
        image = color.rgb2gray(image[..., :3])
    if image.ndim != 2:
        raise ValueError(f"Expected one grey or colour image. Received: image.shape={image.shape}")
    return image.astype(np.float32)


def skimage_module(module: str) -> types.ModuleType:
    """Imports `skimage.<module>`, or raises an error with the command that installs it."""
    try:
        return importlib.import_module(f"skimage.{module}")
    except ImportError as error:
        raise ImportError(
            "Images need scikit-image. Install it with the extra `examples`: pip install 'keras_dynfilter[examples]'"
        ) from error
