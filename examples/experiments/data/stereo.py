# SPDX-License-Identifier: Apache-2.0
"""Loads rectified stereo pairs from folders of left and right images."""

import os
import pathlib

import numpy as np

from examples.experiments.data.photographs import check_size, image_files, read_grey, resized

# The last four pairs are folder names of KITTI: grey and colour cameras, in its odometry data and its raw recordings.
FOLDERS = (
    ("left", "right"),
    ("image_0", "image_1"),
    ("image_2", "image_3"),
    ("image_00/data", "image_01/data"),
    ("image_02/data", "image_03/data"),
)


def load_stereo(folder: str | os.PathLike, size: int | tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Loads rectified stereo pairs: a point is in the same row of both images.

    Args:
        folder: Folder with `left/` and `right/`, or with folders named as in KITTI: `image_0/` and `image_1/`,
            `image_2/` and `image_3/`, `image_00/data/` and `image_01/data/`, `image_02/data/` and `image_03/data/`.
            The images of a pair have the same name, up to the suffix.
        size: Rows of an image, where the number of columns keeps the aspect ratio; or rows and columns. None: images
            keep their size. Disparities shrink with the columns.

    Returns:
        `(left, right)`, `[pairs, height, width]` each, float32, grey, in `[0, 1]`, in the order of the names.

    Raises:
        ValueError: There are no such folders, or no images in them, an image has no partner, images differ in size, or
            `size` is not as described.
        ImportError: scikit-image is not installed.
    """
    size, folder = check_size(size), pathlib.Path(folder)
    pair_names = [names for names in FOLDERS if all((folder / name).is_dir() for name in names)]
    if not pair_names:
        choices = "; ".join(f"{left} and {right}" for left, right in FOLDERS)
        raise ValueError(f"Expected `folder` to hold two folders: {choices}. Received: folder={str(folder)!r}")
    sides = [image_files(folder / name) for name in pair_names[0]]
    names = [[file.stem for file in files] for files in sides]
    if names[0] != names[1] or not names[0]:
        unpaired = sorted(set(names[0]) ^ set(names[1]))
        expected = f"Expected {' and '.join(pair_names[0])} in {folder} to hold images of the same names"
        raise ValueError(f"{expected}. Received: {len(names[0])} and {len(names[1])} images, unpaired: {unpaired[:5]}")
    images = [[resized(read_grey(file), size) for file in files] for files in sides]
    shapes = {image.shape for side in images for image in side}
    if len(shapes) > 1:
        raise ValueError(f"Expected the images in {folder} to be of one size. Received: {sorted(shapes)}")
    return np.stack(images[0]), np.stack(images[1])
