# SPDX-License-Identifier: Apache-2.0
"""Computes sizes of figures and checks their arguments."""

from typing import TYPE_CHECKING

import numpy as np

from keras_dynfilter.inspection import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
LABELS = 0.8  # labels of rows on the left, or of colours on the right
LINE = 0.21  # a line of titles
MARGIN = 0.08
WIDEST = 12.0


def frame_size(images: np.ndarray, columns: int, largest: float) -> tuple[float, float]:
    """Returns width and height in inches of one of `columns` frames of `images`, `[..., height, width, 1]`."""
    width = min(largest, (WIDEST - LABELS) / columns)
    return width, width * images.shape[-3] / images.shape[-2]


def compact_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure for contents of `width` x `height` inches, with little space between the axes."""
    around = 2 * MARGIN
    figure = new_figure(width + around, height + around)
    inside = [
        MARGIN / (width + around),
        MARGIN / (height + around),
        width / (width + around),
        height / (height + around),
    ]
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0, rect=inside)
    return figure


def grey(value: np.ndarray, name: str, rank: int) -> np.ndarray:
    """Returns `value` as an array if it holds images of one channel, has `rank` axes and is not empty."""
    value = np.asarray(value)
    if value.ndim != rank or value.shape[-1] != 1 or not value.size:
        expected = f"Expected `{name}` to have {rank} axes, the last one of size 1, and not to be empty"
        raise ValueError(f"{expected}. Received: {name}.shape={value.shape}")
    return value


def like(value: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns `value` as an array if it has `shape`."""
    value = np.asarray(value)
    if value.shape != tuple(shape):
        raise ValueError(f"Expected `{name}` to be of shape {tuple(shape)}. Received: {name}.shape={value.shape}")
    return value
