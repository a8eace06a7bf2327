# SPDX-License-Identifier: Apache-2.0
"""Computes sizes of figures and checks their arguments."""

from typing import TYPE_CHECKING

import numpy as np

from keras_dynfilter.inspection import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
LABELS = 0.8  # width of the row labels on the left, or of the colour labels on the right
LINE = 0.21  # height of a line of titles
MARGIN = 0.08
WIDEST = 12.0


def frame_size(images: np.ndarray, columns: int, largest: float) -> tuple[float, float]:
    """Returns the width and height in inches at which `columns` frames fit side by side.

    Args:
        images: Frames, `[..., height, width, 1]`.
        columns: Number of frames in a row of the figure.
        largest: Largest width in inches.
    """
    width = min(largest, (WIDEST - LABELS) / columns)
    return width, width * images.shape[-3] / images.shape[-2]


def compact_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure for contents of `width` x `height` inches, with little space between the axes."""
    full_width, full_height = width + 2 * MARGIN, height + 2 * MARGIN
    figure = new_figure(full_width, full_height)
    contents = [MARGIN / full_width, MARGIN / full_height, width / full_width, height / full_height]
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0, rect=contents)
    return figure


def check_grey(value: np.ndarray, name: str, rank: int) -> np.ndarray:
    """Returns `value` as an array. Raises an error unless it has `rank` axes and holds images of one channel."""
    value = np.asarray(value)
    if value.ndim != rank or value.shape[-1] != 1 or not value.size:
        expected = f"Expected `{name}` to have {rank} axes, the last one of size 1, and not to be empty"
        raise ValueError(f"{expected}. Received: {name}.shape={value.shape}")
    return value


def check_shape(value: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns `value` as an array. Raises an error if its shape is not `shape`."""
    value = np.asarray(value)
    if value.shape != tuple(shape):
        raise ValueError(f"Expected `{name}` to be of shape {tuple(shape)}. Received: {name}.shape={value.shape}")
    return value
