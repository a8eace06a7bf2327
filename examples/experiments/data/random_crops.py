# SPDX-License-Identifier: Apache-2.0
"""Makes batches of random crops of videos and of stereo pairs."""

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import random_key, step_dataset
from keras_dynfilter.export import dtypes
from keras_dynfilter.ops.checks import integer, number, positive


def video_clips(
    videos: np.ndarray | list[np.ndarray],
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    frames: int = 6,
    size: int = 64,
) -> tf.data.Dataset:
    """Returns batches of segments of consecutive frames, cropped at random.

    All frames of a segment are cropped at the same place. All segments are equally likely. Step `i` is a function of
    `seed` and `i` alone.

    Args:
        videos: A video `[frames, height, width]`, floating-point, or a list of videos, which may differ in size.
        batch_size: Positive integer, segments per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Integer seed.
        frames: Positive integer, frames per segment.
        size: Positive integer, rows and columns of a crop.

    Returns:
        A `tf.data.Dataset` of `[batch, frames, size, size, 1]`, float32, `steps - start` batches long.

    Raises:
        ValueError: A video is shorter than a segment or smaller than a crop, or an argument is not as described.
    """
    videos = list(videos) if isinstance(videos, (list, tuple)) else [videos]
    batch_size, frames, size = positive(batch_size, "batch_size"), positive(frames, "frames"), positive(size, "size")
    volumes = _Volumes(videos, "videos", (frames, size, size))

    def clips(key, step):
        return volumes.cut(*volumes.random_boxes(key, batch_size))[..., None]

    return step_dataset(clips, steps, start, seed)


def stereo_crops(
    pairs: tuple[np.ndarray, np.ndarray] | list[tuple[np.ndarray, np.ndarray]],
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    size: int = 64,
    shift: int = 0,
    exposure: float = 0.0,
) -> tf.data.Dataset:
    """Returns batches of random crops of stereo pairs.

    The right crop is taken `shift` pixels to the left of the left crop. A point with disparity `d` then moves by
    `shift - d` pixels, so that disparities from 0 to `2 * shift` fit in a filter that covers `shift` pixels on either
    side. Step `i` is a function of `seed` and `i` alone. All pairs are equally likely.

    Args:
        pairs: `(left, right)`, `[pairs, height, width]` each, floating-point, or a list of such tuples, which
            may differ in size.
        batch_size: Positive integer, crops per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Integer seed.
        size: Positive integer, rows and columns of a crop.
        shift: Non-negative integer, pixels.
        exposure: Non-negative number. Both crops of a pair become `gain * values ** gamma`, clipped to `[0, 1]`. The
            logarithms of `gain` and `gamma` are uniform from `-exposure` to `exposure`. This imitates other cameras and
            lighting.

    Returns:
        A `tf.data.Dataset` of `(left, right)`, `[batch, size, size, 1]` each, float32, `steps - start` batches long.

    Raises:
        ValueError: Left and right differ in shape, images are smaller than a crop and its shift, or an argument is not
            as described.
    """
    batch_size, size = positive(batch_size, "batch_size"), positive(size, "size")
    if not integer(shift) or shift < 0:
        raise ValueError(f"Expected `shift` to be a non-negative integer. Received: shift={shift!r}")
    exposure = number(exposure, "exposure", at_least=0)
    pairs = pairs if isinstance(pairs, list) else [pairs]
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or np.shape(pair[0]) != np.shape(pair[1]):
            shapes = [np.shape(image) for image in pair] if isinstance(pair, (tuple, list)) else type(pair).__name__
            expected = "Expected `pairs` to be (left, right), two arrays of one shape, or a list of such tuples"
            raise ValueError(f"{expected}. Received: {shapes}")
    lefts, rights = (_Volumes([pair[side] for pair in pairs], "pairs", (1, size, size + shift)) for side in (0, 1))

    def crops(key, step):
        boxes = lefts.random_boxes(key, batch_size)
        left, right = (side.cut(*boxes)[:, 0, ..., None] for side in (lefts, rights))
        if exposure:
            logarithms = tf.random.stateless_uniform([2, batch_size, 1, 1, 1], random_key(key, 2), -exposure, exposure)
            gain, gamma = tf.unstack(tf.exp(logarithms))
            left, right = (tf.clip_by_value(gain * values**gamma, 0.0, 1.0) for values in (left, right))
        return left[:, :, shift:], right[:, :, :size]

    return step_dataset(crops, steps, start, seed)


class _Volumes:
    """Holds arrays `[depth, height, width]` of different sizes in one flat tensor, and cuts out boxes of equal size."""

    def __init__(self, arrays: list[np.ndarray], name: str, box: tuple[int, int, int]):
        arrays = [np.asarray(array) for array in arrays]
        if not arrays:
            raise ValueError(f"Expected `{name}` not to be empty. Received: {name}=[]")
        for array in arrays:
            if array.ndim != 3 or not dtypes.is_floating(array.dtype) or np.any(np.less(array.shape, box)):
                expected = f"Expected `{name}` to be floating-point, of a shape of at least {box}"
                raise ValueError(f"{expected}. Received: shape={array.shape}, dtype={array.dtype}")
        self.box = box
        self.values = tf.concat([tf.constant(array.ravel().astype(np.float32)) for array in arrays], axis=0)
        self.offsets = tf.constant(np.cumsum([0] + [array.size for array in arrays[:-1]]), tf.int64)
        self.strides = tf.constant([(array[0].size, array.shape[2], 1) for array in arrays], tf.int64)
        self.positions = tf.constant([np.subtract(array.shape, box) + 1 for array in arrays], tf.int64)  # per axis
        self.ends = tf.cumsum(self.positions[:, 0])

    def random_boxes(self, key: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws random boxes: the index of an array, `[count]`, and the first corner in that array, `[count, 3]`."""
        first = tf.random.stateless_uniform([count], random_key(key, 0), 0, self.ends[-1], tf.int64)
        array = tf.searchsorted(self.ends, first, side="right")
        positions = tf.gather(self.positions, array)
        first -= tf.gather(self.ends, array) - positions[:, 0]
        fractions = tf.random.stateless_uniform([count, 2], random_key(key, 1), dtype=tf.float64)
        corners = tf.cast(fractions * tf.cast(positions[:, 1:], tf.float64), tf.int64)
        return array, tf.concat([first[:, None], corners], axis=1)

    def cut(self, array: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
        """Cuts out the boxes, `[count, *box]`."""
        strides = tf.gather(self.strides, array)
        index = tf.gather(self.offsets, array) + tf.reduce_sum(begins * strides, axis=1)
        for axis, extent in enumerate(self.box):
            index = index[..., None] + tf.range(extent, dtype=tf.int64) * tf.reshape(
                strides[:, axis], [-1] + [1] * (axis + 1)
            )
        return tf.gather(self.values, index)
