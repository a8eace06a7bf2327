# SPDX-License-Identifier: Apache-2.0
"""The disparity that filters imply, on whole images and against the truth; and shifted views."""

import numpy as np
import pytest

from examples.experiments.dfn import stereo_disparity


def test_shift_between_pixels():
    ramp = np.arange(8.0, dtype=np.float32).reshape(1, 1, 8, 1)
    np.testing.assert_allclose(stereo_disparity.shifted(ramp, 0.25)[0, 0, :7, 0], np.arange(7) + 0.25)
    np.testing.assert_allclose(stereo_disparity.shifted(ramp, -1.5)[0, 0, 2:, 0], np.arange(2, 8) - 1.5)
    np.testing.assert_array_equal(stereo_disparity.shifted(ramp, 2)[0, 0, -3:, 0], [7, 7, 7])  # repeats the edge


@pytest.mark.parametrize("tied", [False, True])
def test_disparity_of_a_whole_image(monkeypatch, tied):
    """Disparities of overlapping crops are averaged in place. In this test, the offset of a pixel is its value."""
    monkeypatch.setattr(stereo_disparity, "filter_offsets", lambda network, left, radius: left[..., 0])
    left = np.random.default_rng(0).random((20, 45), np.float32)
    disparity = stereo_disparity.disparity_map(None, left, size=16, radius=2, tied=tied)
    np.testing.assert_allclose(disparity, left[:, 2:] + 2, rtol=1e-6)


def test_errors_without_learning():
    truth = np.array([[1.0, 2.0, 9.0, np.nan]])
    errors = stereo_disparity.mean_disparity_errors(truth + 0.5, truth, truth <= 9, radius=3)
    assert errors == pytest.approx({"dfn": 0.5, "middle of window": 3.0, "best constant": 8 / 3})
