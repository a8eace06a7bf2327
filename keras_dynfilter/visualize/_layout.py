# SPDX-License-Identifier: Apache-2.0
"""Sizes and checks that the figures share."""

import numpy as np

from keras_dynfilter.visualize.panels import new_figure

# Inches: the labels of rows on the left, a line of titles.
LABELS, LINE = 0.95, 0.24
WIDEST = 12.0


def frame_size(images, columns, largest):
    """Width and height in inches of one of `columns` frames, `images` being `[..., height, width, 1]`."""
    width = min(largest, (WIDEST - LABELS) / columns)
    return width, width * images.shape[-3] / images.shape[-2]


def compact_figure(width, height):
    """An empty figure of `width` x `height` inches with little room between the axes."""
    figure = new_figure(width, height)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    return figure


def batch(value, name, rank):
    """`value` as an array of `rank` axes that is not empty."""
    value = np.asarray(value)
    if value.ndim != rank or not value.size:
        expected = f"Expected `{name}` to have {rank} axes and not to be empty"
        raise ValueError(f"{expected}. Received: {name}.shape={value.shape}")
    return value


def like(value, name, shape):
    """`value` as an array of `shape`."""
    value = np.asarray(value)
    if value.shape != tuple(shape):
        raise ValueError(f"Expected `{name}` to be of shape {tuple(shape)}. Received: {name}.shape={value.shape}")
    return value
