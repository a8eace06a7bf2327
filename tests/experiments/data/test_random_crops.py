# SPDX-License-Identifier: Apache-2.0
"""Tests random crops of videos and stereo pairs. All pixels have different values, so that a crop can be located."""

import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data

pytestmark = pytest.mark.legacy


def numbered(*shapes):
    """Returns arrays of these shapes. Their pixels are numbered, and the numbers go on from array to array."""
    ends = np.cumsum([0, *map(np.prod, shapes)])
    return [np.arange(a, b, dtype=np.float32).reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]


def places(crops, arrays):
    """Returns array, depth, row and column of crops `[count, depth, height, width]`. Checks all pixels of the crops."""
    located = []
    for crop in crops:
        number = next(n for n, array in enumerate(arrays) if array.min() <= crop.flat[0] <= array.max())
        corner = tuple(int(i[0]) for i in np.nonzero(arrays[number] == crop.flat[0]))
        window = tuple(slice(c, c + extent) for c, extent in zip(corner, crop.shape))
        np.testing.assert_array_equal(crop, arrays[number][window])
        located.append((number, *corner))
    return np.array(located)


def all_crops(dataset):
    return np.concatenate([batch[..., 0] for batch in dataset.as_numpy_iterator()])


VIDEOS = numbered((9, 12, 17), (5, 8, 11), (4, 8, 8))


def test_clips_are_cut_out_of_the_videos():
    dataset = data.video_clips(VIDEOS, 50, steps=40, frames=4, size=8)
    assert dataset.element_spec == tf.TensorSpec([50, 4, 8, 8, 1], tf.float32)
    assert int(dataset.cardinality()) == 40
    located = places(all_crops(dataset), VIDEOS)
    assert len(located) == 2000
    # Every segment of every video appears equally often, and every crop of it appears.
    segments, counts = np.unique(located[:, :2], axis=0, return_counts=True)
    assert [tuple(s) for s in segments] == [(0, i) for i in range(6)] + [(1, 0), (1, 1), (2, 0)]
    assert np.abs(counts - 2000 / 9).max() < 5 * np.sqrt(2000 / 9)
    crops = np.unique(located[located[:, 0] == 0][:, 2:], axis=0)
    assert len(crops) == 5 * 10 and crops.max(axis=0).tolist() == [4, 9]


def test_one_video_needs_no_list():
    dataset = data.video_clips(VIDEOS[0], 2, steps=1, frames=9, size=12)
    assert len(places(all_crops(dataset), VIDEOS[:1])) == 2


LEFT = numbered((3, 10, 30), (2, 9, 20))
RIGHT = [array + 100_000 for array in LEFT]


@pytest.mark.parametrize("shift", [0, 5])
def test_right_crops_are_shifted_to_the_left(shift):
    dataset = data.stereo_crops(list(zip(LEFT, RIGHT)), 40, steps=30, size=8, shift=shift)
    spec = tf.TensorSpec([40, 8, 8, 1], tf.float32)
    assert dataset.element_spec == (spec, spec)
    lefts, rights = (
        places(all_crops(dataset.map(lambda *pair, s=s: pair[s]))[:, None], a) for s, a in enumerate((LEFT, RIGHT))
    )
    np.testing.assert_array_equal(lefts - rights, np.broadcast_to([0, 0, 0, shift], lefts.shape))
    first = lefts[lefts[:, 0] == 0]
    assert first[:, 3].min() == shift and first[:, 3].max() == 30 - 8
    pairs, counts = np.unique(lefts[:, :2], axis=0, return_counts=True)
    assert len(pairs) == 5 and np.abs(counts - 240).max() < 5 * np.sqrt(240)


def test_disparities_are_moved_by_the_shift():
    scene = np.random.default_rng(0).random((4, 10, 60)).astype(np.float32)
    left, right = scene[:, :, :50], scene[:, :, 7:57]  # a disparity of 7 everywhere
    for a, b in data.stereo_crops((left, right), 5, steps=3, size=9, shift=4).as_numpy_iterator():
        np.testing.assert_array_equal(b[:, :, :-3], a[:, :, 3:])  # 7 - 4 pixels are left


def test_exposure():
    image = np.broadcast_to(np.linspace(0.1, 0.9, 20, dtype=np.float32)[:, None], (1, 20, 20))
    crops = data.stereo_crops((image, image), 50, steps=2, size=20, exposure=0.5).as_numpy_iterator()
    left, right = (np.concatenate(side)[:, :, 0, 0] for side in zip(*crops))
    np.testing.assert_array_equal(left, right)  # both views change in the same way
    assert left.min() >= 0 and left.max() <= 1
    inner = left[left[:, -1] < 1]  # nothing was clipped: gain and gamma can be computed
    gamma, gain = np.polyfit(np.log(image[0, :, 0]), np.log(inner).T, 1)
    fitted = gain[:, None] + gamma[:, None] * np.log(image[0, :, 0])
    np.testing.assert_allclose(np.log(inner), fitted, atol=1e-4)
    assert 0.4 < np.abs(np.log(gamma)).max() <= 0.5001 and 0.4 < np.abs(gain).max() <= 0.5001
    assert abs(np.corrcoef(np.log(gamma), gain)[0, 1]) < 0.6


@pytest.mark.parametrize("kind", ["video", "stereo"])
def test_a_step_depends_on_seed_and_step_alone(kind):
    def batches(**keywords):
        if kind == "video":
            dataset = data.video_clips(VIDEOS, 6, steps=6, frames=2, size=4, **keywords)
        else:
            pair = (LEFT[0] / 1e6, RIGHT[0] / 1e6)
            dataset = data.stereo_crops(pair, 6, steps=6, size=4, shift=2, exposure=0.3, **keywords)
        return [np.stack(batch) for batch in dataset.as_numpy_iterator()]

    whole = batches(seed=5)
    np.testing.assert_array_equal(whole, batches(seed=5))
    np.testing.assert_array_equal(whole[4:], batches(seed=5, start=4))
    for other in (batches(seed=6), whole[1:] + whole[:1]):
        assert all(np.any(a != b) for a, b in zip(whole, other))


VIDEO, PAIR = VIDEOS[0], (LEFT[0], RIGHT[0])
ERRORS = {
    "no video": (lambda: data.video_clips([], 1, 1), r"`videos` not to be empty\. Received: videos=\[\]"),
    "too short": (
        lambda: data.video_clips(VIDEO, 1, 1, frames=10, size=8),
        r"`videos` to be floating-point, of a shape of at least \(10, 8, 8\)\. Received: shape=\(9, 12, 17\)",
    ),
    "too small": (lambda: data.video_clips([VIDEO, VIDEOS[1]], 1, 1, frames=5, size=9), r"`videos`.*\(5, 8, 11\)"),
    "colour": (lambda: data.video_clips(VIDEO[..., None], 1, 1, frames=2, size=8), r"`videos`.*\(9, 12, 17, 1\)"),
    "integers": (lambda: data.video_clips(VIDEO.astype(int), 1, 1, frames=2, size=8), r"`videos`.*dtype=int64"),
    "batch": (lambda: data.video_clips(VIDEO, 0, 1, size=8), r"`batch_size` to be a positive .*batch_size=0"),
    "frames": (lambda: data.video_clips(VIDEO, 1, 1, frames=0, size=8), r"`frames` to be a positive .*frames=0"),
    "size": (lambda: data.video_clips(VIDEO, 1, 1, size=8.0), r"`size` to be a positive .*size=8\.0"),
    "steps": (lambda: data.video_clips(VIDEO, 1, 1.5, size=8), r"`steps` to be a non-negative integer.*steps=1\.5"),
    "one side": (lambda: data.stereo_crops(LEFT[0], 1, 1, size=8), r"`pairs` to be \(left, right\).*Received: ndarray"),
    "two sizes": (
        lambda: data.stereo_crops((LEFT[0], LEFT[1]), 1, 1, size=8),
        r"`pairs` to be \(left, right\).*Received: \[\(3, 10, 30\), \(2, 9, 20\)\]",
    ),
    "three": (lambda: data.stereo_crops((*PAIR, LEFT[0]), 1, 1, size=8), r"`pairs` to be \(left, right\)"),
    "no pair": (lambda: data.stereo_crops([], 1, 1, size=8), r"`pairs` not to be empty"),
    "narrow": (lambda: data.stereo_crops(PAIR, 1, 1, size=8, shift=23), r"`pairs` to be .* at least \(1, 8, 31\)"),
    "shift": (lambda: data.stereo_crops(PAIR, 1, 1, size=8, shift=-1), r"`shift` to be a non-negative .*shift=-1"),
    "exposure": (
        lambda: data.stereo_crops(PAIR, 1, 1, size=8, exposure=-0.1),
        r"`exposure` to be a non-negative number.*exposure=-0\.1",
    ),
    "seed": (lambda: data.stereo_crops(PAIR, 1, 1, size=8, seed=None), r"`seed` to be an integer of 64 .*seed=None"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match="Expected " + message):
        call()
