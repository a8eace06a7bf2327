# SPDX-License-Identifier: Apache-2.0
"""The motion of digits as filters tell it, which nobody has shown the network, beside the true one, in pixels."""

import numpy as np

from examples.experiments import data
from keras_dynfilter import inspection

BATCH = 50


def moving_pairs(digits, count, frames, size, seed):
    """Sequences of two digits whose motion is known.

    Args:
        digits: Digits as `data.moving_digits` takes them.
        count, frames: Numbers of sequences, and of frames in each; at least 3 are made.
        size: Rows and columns of a frame.
        seed: Integer seed.

    Returns:
        Sequences `[count, frames, size, size, 1]`; the flow to the last frame from the one before it, and that to the
        one before it, both `[count, size, size, 2]`; and the pixels of the last frame where one digit is alone,
        `[count, size, size]`, for which they hold.
    """
    steps, frames = -(-count // BATCH), max(frames, 3)
    single = [
        data.moving_digits(digits, BATCH, steps, seed=seed + number, frames=frames, digits_per_sequence=1, size=size)
        for number in range(2)
    ]
    single = [np.concatenate(list(batches.as_numpy_iterator()))[:count] for batches in single]
    corners = [_corners(part[:, -3:, ..., 0]) for part in single]
    last = [part[:, -1, ..., 0] for part in single]
    strokes = [digit > 0.5 * digit.max(axis=(1, 2), keepdims=True) for digit in last]
    alone = [stroke & (other == 0) for stroke, other in zip(strokes, reversed(last))]
    flows = []
    for later in (2, 1):
        offsets = [(places[:, later - 1] - places[:, later])[:, None, None] for places in corners]
        flows.append(np.where(alone[0][..., None], *offsets).astype("float32"))
    return np.maximum(*single), *flows, alone[0] | alone[1]


def _corners(images):
    """(x, y) of the top left corner of what is not black, `[..., 2]`; a digit is never cut off."""
    ink = images > 0
    return np.stack([ink.any(axis=-2).argmax(axis=-1), ink.any(axis=-1).argmax(axis=-1)], axis=-1)


def end_point_errors(network, sequences, kernel_size, given):
    """Mean end-point errors in pixels, where a digit is alone.

    Args:
        network: A `models.dfn_moving_mnist`.
        sequences: What `moving_pairs` returns, of `given + 1` frames or more.
        kernel_size: Of the filters.
        given: Frames that the network is given.

    Returns:
        Errors by name: of the network; of no motion at all; and of a motion that stays as it was between the last
        frames given, which is wrong where digits bounce.
    """
    frames, truth, before, mask = sequences
    parts = [
        inspection.generated_filters(network, frames[first : first + BATCH, -given - 1 : -1], steps=1)[:, 0]
        for first in range(0, len(frames), BATCH)
    ]
    found = {
        "dfn": inspection.filters_to_flow(np.concatenate(parts), kernel_size),
        "no motion": np.zeros_like(truth),
        "motion as before": before,
    }
    return {name: inspection.end_point_error(flow, truth, mask) for name, flow in found.items()}
