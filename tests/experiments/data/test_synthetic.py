# SPDX-License-Identifier: Apache-2.0
"""Tests that the flow of synthetic videos and stereo pairs agrees with the images."""

import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.data import synthetic

pytestmark = pytest.mark.legacy


def warped(image, flow_x, flow_y):
    """Looks up `image[y + flow_y, x + flow_x]` for every pixel, linear between pixels; NaN outside the image."""
    height, width = image.shape
    result = np.full(image.shape, np.nan)
    for y in range(height):
        for x in range(width):
            v, u = y + flow_y[y, x], x + flow_x[y, x]
            if not (0 <= v <= height - 1 and 0 <= u <= width - 1):
                continue
            top, left = min(int(v), height - 2), min(int(u), width - 2)
            a, b = v - top, u - left
            corners = image[top : top + 2, left : left + 2].astype(np.float64)
            result[y, x] = np.array([1 - a, a]) @ corners @ np.array([1 - b, b])
    return result


def video_errors(videos, flow, mask):
    """Returns the errors of warped frames and of unmoved frames, as predictions of the next frame, inside the mask."""
    moved, unmoved = [], []
    for video, fields, masks in zip(videos[..., 0], flow, mask):
        for earlier, later, field, visible in zip(video, video[1:], fields, masks):
            moved.append(np.abs(warped(earlier, field[..., 0], field[..., 1]) - later)[visible])
            unmoved.append(np.abs(earlier - later)[visible])
    return np.concatenate(moved), np.concatenate(unmoved)


def stereo_errors(left, right, flow, mask):
    pairs = zip(left[..., 0], right[..., 0], flow, mask)
    errors = [(np.abs(warped(a, f, 0 * f) - b)[m], np.abs(a - b)[m]) for a, b, f, m in pairs]
    return [np.concatenate(e) for e in zip(*errors)]


def test_later_frames_are_earlier_ones_warped():
    videos, flow, mask = data.synthetic_video(12, frames=3, seed=3)
    assert videos.shape == (12, 3, 64, 64, 1) and videos.dtype == np.float32
    assert flow.shape == (12, 2, 64, 64, 2) and flow.dtype == np.float32
    assert mask.shape == (12, 2, 64, 64) and mask.dtype == bool
    assert videos.min() >= 0 and videos.max() <= 1
    moved, unmoved = video_errors(videos, flow, mask)
    assert np.all(np.isfinite(moved))  # a pixel of the mask comes from inside the frame
    assert moved.mean() < 0.004 and moved.max() < 0.04  # the error of linear interpolation
    assert unmoved.mean() > 10 * moved.mean()
    assert 0.7 < mask.mean() < 0.95
    for wrong in (-flow, flow[..., ::-1], np.roll(flow, 1, axis=0)):
        assert np.nanmean(video_errors(videos, wrong, mask)[0]) > 8 * moved.mean()


def test_whole_pixels_are_exact():
    rng = np.random.default_rng(0)
    for _ in range(5):
        scene = synthetic.Scene.random(rng, 32)
        velocities = rng.integers(-4, 5, [len(scene.textures), 2]).astype(float)
        frames, flow, mask = scene.video(velocities, 3)
        moved, _ = video_errors(frames[None, ..., None], flow[None], mask[None])
        np.testing.assert_allclose(moved, 0, atol=1e-9)
        disparities = np.broadcast_to(rng.integers(0, 6, [len(scene.textures), 1]), [len(scene.textures), 32]) * 1.0
        left, right, disparity, visible = scene.stereo(disparities, np.ones_like(disparities))
        moved, _ = stereo_errors(left[None, ..., None], right[None, ..., None], disparity[None], visible[None])
        np.testing.assert_allclose(moved, 0, atol=1e-9)


def test_mask_excludes_covered_pixels_and_pixels_from_outside():
    square = np.array([[16.0, 16.0, 5.5, 5.5, 0.0, 8.0]])
    rng = np.random.default_rng(0)
    textures = np.stack([0.5 * rng.random([48, 48]), 0.5 + 0.5 * rng.random([48, 48])])  # dark ground, bright shape
    scene = synthetic.Scene(textures, square, 32)
    frames, flow, mask = scene.video(np.array([[1.0, 0.0], [-2.0, 0.0]]), 2)
    bright = frames >= 0.5
    assert bright[0].sum() == 11 * 11
    np.testing.assert_array_equal(bright[0], np.roll(bright[1], 2, axis=1))
    np.testing.assert_array_equal(flow[0][bright[1]], np.broadcast_to([2.0, 0.0], [bright[1].sum(), 2]))
    np.testing.assert_array_equal(flow[0][~bright[1]], np.broadcast_to([-1.0, 0.0], [(~bright[1]).sum(), 2]))
    # The shape uncovers ground one column to the left of its old place; the first column comes from outside.
    expected = bright[1] | ~np.roll(bright[0], 1, axis=1)
    expected[:, 0] = False
    np.testing.assert_array_equal(mask[0], expected)


def test_right_images_are_left_ones_warped():
    left, right, flow, mask = data.synthetic_stereo(12, seed=3)
    assert left.shape == right.shape == (12, 64, 64, 1) and left.dtype == right.dtype == np.float32
    assert flow.shape == mask.shape == (12, 64, 64) and flow.dtype == np.float32 and mask.dtype == bool
    assert min(left.min(), right.min()) >= 0 and max(left.max(), right.max()) <= 1
    assert flow.min() >= 0 and 3 < flow.max() <= 6
    moved, unmoved = stereo_errors(left, right, flow, mask)
    assert np.all(np.isfinite(moved))
    assert moved.mean() < 0.004 and moved.max() < 0.04
    assert unmoved.mean() > 10 * moved.mean()
    assert 0.8 < mask.mean() < 0.98
    assert np.nanmean(stereo_errors(left, right, -flow, mask)[0]) > 8 * moved.mean()


def test_distant_layers_have_less_contrast():
    _, right, disparity, _ = data.synthetic_stereo(40, seed=3)
    visible = np.abs(right[..., 0] - synthetic.HAZE)
    assert np.corrcoef(visible.ravel(), disparity.ravel())[0, 1] > 0.4
    near, far = disparity > 5, disparity < 1
    assert visible[near].mean() > 3 * visible[far].mean()


def test_largest_motion():
    flow = data.synthetic_video(40, frames=2, size=16, max_motion=2.5)[1]
    assert 2 < np.abs(flow).max() <= 2.5
    assert abs(flow.mean()) < 0.5  # no direction is preferred
    videos, flow, mask = data.synthetic_video(2, frames=3, size=16, max_motion=0)
    assert not flow.any() and mask.all()
    np.testing.assert_allclose(videos[:, :1], videos[:, 1:2], atol=1e-6)
    assert data.synthetic_stereo(40, size=16, max_disparity=3)[2].max() <= 3
    left, right, *_ = data.synthetic_stereo(2, size=16, max_disparity=0)
    np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("make", [data.synthetic_video, data.synthetic_stereo])
def test_samples_do_not_depend_on_count(make):
    few, many, others = make(2, size=16, seed=4), make(5, size=16, seed=4), make(2, size=16, seed=5)
    for a, b, c in zip(few[:2], many[:2], others[:2]):
        np.testing.assert_array_equal(a, b[:2])
        assert np.any(a != c)
    assert make(1, size=np.int64(17))[0].shape[-2] == 17  # odd sizes too


VIDEO, STEREO = data.synthetic_video, data.synthetic_stereo
ERRORS = {
    "count": (VIDEO, dict(count=0), r"`count` to be a positive integer.*count=0"),
    "frames": (VIDEO, dict(frames=1), r"`frames` to be at least 2.*frames=1"),
    "frames float": (VIDEO, dict(frames=3.0), r"`frames` to be a positive integer.*frames=3\.0"),
    "size": (VIDEO, dict(size=15), r"`size` to be an integer of at least 16.*size=15"),
    "motion": (VIDEO, dict(max_motion=-1), r"`max_motion` to be a number from 0 to less than 64.*max_motion=-1"),
    "motion nan": (VIDEO, dict(max_motion=float("nan")), r"`max_motion` to be a number .*max_motion=nan"),
    "seed": (VIDEO, dict(seed=-1), r"`seed` to be a non-negative integer.*seed=-1"),
    "pairs": (STEREO, dict(count=2.0), r"`count` to be a positive integer.*count=2\.0"),
    "stereo size": (STEREO, dict(size=True), r"`size` to be an integer of at least 16.*size=True"),
    "disparity": (STEREO, dict(max_disparity=64), r"`max_disparity` to be a number .*max_disparity=64"),
    "disparity text": (STEREO, dict(max_disparity="6"), r"`max_disparity` to be a number .*max_disparity='6'"),
    "stereo seed": (STEREO, dict(seed=0.5), r"`seed` to be a non-negative integer.*seed=0\.5"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, wrong, message = ERRORS[case]
    with pytest.raises(ValueError, match="Expected " + message):
        make(**{"count": 1, **wrong})
