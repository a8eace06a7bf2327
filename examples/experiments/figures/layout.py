# SPDX-License-Identifier: Apache-2.0
"""Sizes and checks that the figures share."""

import numpy as np

from keras_dynfilter.inspection import new_figure

# Inches: labels of rows on the left or of colours on the right, a line of titles, around everything.
LABELS, LINE, MARGIN = 0.8, 0.21, 0.08
WIDEST = 12.0


def frame_size(images, columns, largest):
    """Width and height in inches of one of `columns` frames, `images` being `[..., height, width, 1]`."""
    width = min(largest, (WIDEST - LABELS) / columns)
    return width, width * images.shape[-3] / images.shape[-2]


def compact_figure(width, height):
    """An empty figure for contents of `width` x `height` inches, with little room between the axes."""
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


def grey(value, name, rank):
    """`value` as images of one channel, an array of `rank` axes that is not empty."""
    value = np.asarray(value)
    if value.ndim != rank or value.shape[-1] != 1 or not value.size:
        expected = f"Expected `{name}` to have {rank} axes, the last one of size 1, and not to be empty"
        raise ValueError(f"{expected}. Received: {name}.shape={value.shape}")
    return value


def like(value, name, shape):
    """`value` as an array of `shape`."""
    value = np.asarray(value)
    if value.shape != tuple(shape):
        raise ValueError(f"Expected `{name}` to be of shape {tuple(shape)}. Received: {name}.shape={value.shape}")
    return value
