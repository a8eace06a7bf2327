# SPDX-License-Identifier: Apache-2.0
"""Compares the motion of digits that the filters imply, without supervision, with the true motion, in pixels."""

import numpy as np

from examples.experiments import data
from keras_dynfilter import inspection

BATCH = 50


def moving_pairs(digits, count, frames, size, seed):
    """Generates sequences of two digits whose motion is known.

    Args:
        digits: Digits as `data.moving_digits` takes them.
        count: Number of sequences.
        frames: Number of frames of a sequence, at least 3.
        size: Rows and columns of a frame.
        seed: Integer seed.

    Returns:
        Tuple of four arrays:

        * sequences, `[count, frames, size, size, 1]`;
        * flow to the last frame from the frame before it, `[count, size, size, 2]`;
        * flow to the second-to-last frame from the frame before it, `[count, size, size, 2]`;
        * mask of the pixels of the last frame where the digits do not overlap, for which the flow is known,
          `[count, size, size]`.
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
    """Returns (x, y) of the top left corner of the digit, `[..., 2]`; digits are always inside the frame."""
    ink = images > 0
    return np.stack([ink.any(axis=-2).argmax(axis=-1), ink.any(axis=-1).argmax(axis=-1)], axis=-1)


def end_point_errors(network, sequences, kernel_size, input_frames):
    """Computes mean end-point errors in pixels, where digits do not overlap.

    Args:
        network: A `models.dfn_moving_mnist`.
        sequences: What `moving_pairs` returns, of at least `input_frames + 1` frames.
        kernel_size: Size of the filters.
        input_frames: Number of frames that the network is given.

    Returns:
        Errors by name: of the network, of no motion, and of the motion between the last two input frames, which is
        wrong where digits bounce.
    """
    frames, true_flow, flow_before, mask = sequences
    parts = [
        inspection.generated_filters(network, frames[first : first + BATCH, -input_frames - 1 : -1], steps=1)[:, 0]
        for first in range(0, len(frames), BATCH)
    ]
    flows = {
        "dfn": inspection.filters_to_flow(np.concatenate(parts), kernel_size),
        "no motion": np.zeros_like(true_flow),
        "motion as before": flow_before,
    }
    return {name: inspection.end_point_error(flow, true_flow, mask) for name, flow in flows.items()}
