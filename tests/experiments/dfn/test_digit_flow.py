# SPDX-License-Identifier: Apache-2.0
"""The true motion of digits, and the errors of the motion that filters imply."""

import numpy as np
import pytest

from examples.experiments.dfn import digit_flow
from keras_dynfilter import inspection

COUNT, SIZE = 60, 32  # more than a batch


@pytest.fixture(scope="module")
def pairs():
    digits = np.random.default_rng(0).uniform(0.2, 1.0, (8, 14, 14)).astype("float32")
    return digit_flow.moving_pairs(digits, COUNT, 4, SIZE, seed=3)


def test_flow_points_to_where_pixels_were(pairs):
    frames, flow, before, mask = pairs
    assert frames.shape == (COUNT, 4, SIZE, SIZE, 1) and flow.shape == before.shape == (COUNT, SIZE, SIZE, 2)
    sample, y, x = np.nonzero(mask)
    for vectors, later in ((flow, 3), (before, 2)):
        source_x, source_y = (vectors[mask] + np.stack([x, y], axis=-1)).astype(int).T
        if later == 2:  # the pixel of the last frame, one frame earlier
            step_x, step_y = (flow[mask] + np.stack([x, y], axis=-1)).astype(int).T
            source_x, source_y = source_x + step_x - x, source_y + step_y - y
            now = frames[sample, 2, step_y, step_x]
        else:
            now = frames[sample, 3, y, x]
        inside = (source_x >= 0) & (source_x < SIZE) & (source_y >= 0) & (source_y < SIZE)
        then = frames[sample, later - 1, source_y.clip(0, SIZE - 1), source_x.clip(0, SIZE - 1)]
        # The other digit may cover a pixel there, and is then brighter.
        assert inside.all() and (then == now).mean() > 0.6 and set(np.unique(vectors)) > {-1.0, 0.0, 1.0}
    assert 1.0 < np.linalg.norm(flow[mask], axis=-1).mean() < 1.8 * np.sqrt(2)  # 0.1 of 32 - 14 pixels, rounded


def test_errors_of_filters_with_the_true_motion(pairs, monkeypatch):
    _, flow, _, mask = pairs
    offsets = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2)
    nearest = np.linalg.norm(flow[..., None, :] - offsets, axis=-1).argmin(axis=-1)
    done = []

    def generated(network, frames, steps):
        assert frames.shape[1] == 3 and steps == 1
        done.extend(frames)
        return np.eye(25, dtype="float32")[nearest[len(done) - len(frames) : len(done)]][:, None]

    monkeypatch.setattr(inspection, "generated_filters", generated)
    errors = digit_flow.end_point_errors(None, pairs, 5, input_frames=3)
    assert len(done) == COUNT and errors["dfn"] == pytest.approx(0, abs=1e-6)
    assert errors["no motion"] == pytest.approx(np.linalg.norm(flow[mask], axis=-1).mean())
    assert 0 < errors["motion as before"] < errors["no motion"]


def test_two_frames_become_three():
    digits = np.ones((3, 4, 4), "float32")
    frames, *_ = digit_flow.moving_pairs(digits, 2, 2, 8, seed=0)
    assert frames.shape[:2] == (2, 3)
