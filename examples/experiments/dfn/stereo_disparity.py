# SPDX-License-Identifier: Apache-2.0
"""Reads the disparity off the filters of a stereo network, and predicts right views by shifts alone."""

import keras
import numpy as np

from examples.experiments.dfn import crops
from keras_dynfilter import inspection


def shift_errors(left: np.ndarray, right: np.ndarray, radius: int):
    """Returns offsets in the window of a filter, in steps of 0.25 pixels, and the error of each for every image."""
    offsets = np.arange(-4 * radius, 4 * radius + 1) / 4
    return offsets, np.stack([np.square(shifted(left, offset) - right).mean(axis=(1, 2, 3)) for offset in offsets])


def shifted(images: np.ndarray, offset: float) -> np.ndarray:
    """Returns the pixels that are `offset` to the right in `[..., height, width, 1]`, linearly interpolated."""
    whole = int(np.floor(offset))
    width = images.shape[-2]
    columns = np.arange(width) + whole
    near, far = (images[..., np.clip(columns + i, 0, width - 1), :] for i in (0, 1))
    return near + np.float32(offset - whole) * (far - near)


def filter_offsets(network: keras.Model, left: np.ndarray, radius: int) -> np.ndarray:
    """Returns the expected offset of each filter, in pixels to the right, `[batch, height, width]`."""
    parts = (inspection.generated_filters(network, part) for part, _ in crops.batches(left, left))
    return np.concatenate([inspection.filters_to_flow(part, (1, 2 * radius + 1))[..., 0] for part in parts])


def disparity_map(network: keras.Model, left: np.ndarray, size: int, radius: int, tied: bool) -> np.ndarray:
    """Returns the disparity `[height, width - radius]` of the right view that the network infers from the left view.

    A network with untied biases (`tied` is false) needs crops of `size` rows and columns. The crops overlap by half,
    and a pixel has a larger weight the farther it is from the border of its crop.
    """
    image = left[:, radius:, None]
    if tied:
        return filter_offsets(network, image[None], radius)[0] + radius
    corners = [
        (row, column)
        for row in crops.evenly_spaced(image.shape[0] - size, -(-2 * image.shape[0] // size) - 1)
        for column in crops.evenly_spaced(image.shape[1] - size, -(-2 * image.shape[1] // size) - 1)
    ]
    tiles = np.stack([image[row : row + size, column : column + size] for row, column in corners])
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    total, weight = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for (row, column), tile in zip(corners, filter_offsets(network, tiles, radius)):
        total[row : row + size, column : column + size] += np.outer(ramp, ramp) * tile
        weight[row : row + size, column : column + size] += np.outer(ramp, ramp)
    return total / weight + radius


def mean_disparity_errors(disparity: np.ndarray, truth: np.ndarray, known: np.ndarray, radius: int):
    """Computes mean absolute errors in pixels: of the network, the middle of the window, and the best constant."""
    candidates = {"dfn": disparity, "middle of window": np.full_like(truth, radius)}
    candidates["best constant"] = np.full_like(truth, np.median(truth[known]))
    return {
        name: inspection.end_point_error(values[..., None], truth[..., None], known)
        for name, values in candidates.items()
    }
