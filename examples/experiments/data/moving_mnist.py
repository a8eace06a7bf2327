# SPDX-License-Identifier: Apache-2.0
"""Generates Moving MNIST: digits that fly straight ahead inside a box and bounce off its walls.

    digits = load_mnist("train").images[..., 0]
    sequences = split_frames(moving_digits(digits, batch_size=16, steps=20_000), input_frames=10)

The sequences are not read from the published files, which hold 10,000 fixed sequences: training draws new sequences in
every step. A step consists of plain TensorFlow ops without state, so it runs in the threads of tf.data next to the
training.

The rules are those of Srivastava et al., 2015, https://arxiv.org/abs/1502.04681, as used in Dynamic Filter Networks,
https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import math

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import random_key, step_dataset
from keras_dynfilter.export import dtypes
from keras_dynfilter.ops.checks import number, positive

# Up to this many digits, a step computes whole permutations. For more digits, it is faster to compute single elements
# of a permutation with `index_shuffle`.
SHUFFLED_AS_A_WHOLE = 2000


def moving_digits(
    digits: np.ndarray,
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    frames: int = 20,
    digits_per_sequence: int = 2,
    size: int = 64,
    speed: float = 0.1,
) -> tf.data.Dataset:
    """Returns batches of sequences of moving digits.

    Every digit starts at a random place in the box and flies in a random direction. In each frame it first moves, then
    bounces: a coordinate on or beyond the border of the box is set to the border, and its component of the velocity
    changes sign. Where digits overlap, the brighter pixel counts. All digits of the data set appear once in random
    order, then once in another order, and so on.

    Step `i` is a function of `seed` and `i` alone, so that a run that resumes at `start` sees the same sequences as a
    run without a break.

    Args:
        digits: Digits, `[count, height, width]`, uint8, or floating-point in `[0, 1]`.
        batch_size: Positive integer, sequences per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Integer seed.
        frames: Positive integer, frames per sequence.
        digits_per_sequence: Positive integer.
        size: Positive integer, rows and columns of a frame. A digit must fit in.
        speed: Distance that a digit flies per frame, as a share of the box that its corner moves in: 0.1 of
            64 - 28 pixels is 3.6 pixels.

    Returns:
        A `tf.data.Dataset` of `[batch, frames, size, size, 1]`, float32 in `[0, 1]`, `steps - start` batches long.

    Raises:
        ValueError: An argument is not as described.
    """
    digits = _standardize(digits)
    height, width = digits.shape[1:]
    batch_size, frames = positive(batch_size, "batch_size"), positive(frames, "frames")
    digits_per_sequence = positive(digits_per_sequence, "digits_per_sequence")
    size, speed = positive(size, "size"), number(speed, "speed", at_least=0)
    if size < max(height, width):
        raise ValueError(f"Expected `size` to be at least that of a digit, {height} x {width}. Received: size={size}")
    box = tf.constant([size - height, size - width], tf.float64)
    images = tf.constant(digits)

    def sequences(key, step):
        chosen, positions, angles = draw(key, step, batch_size, digits_per_sequence, len(digits))
        velocities = tf.stack([tf.sin(angles), tf.cos(angles)], axis=-1) * speed
        corners = tf.cast(tf.floor(fly(positions, velocities, frames) * box), tf.int32)
        canvas = paste(tf.gather(images, chosen), corners, size)
        canvas = tf.cast(canvas, tf.float32) / 255.0 if canvas.dtype == tf.uint8 else canvas
        return tf.ensure_shape(canvas[..., None], [batch_size, frames, size, size, 1])

    return step_dataset(sequences, steps, start, seed)


def split_frames(dataset: tf.data.Dataset, input_frames: int) -> tf.data.Dataset:
    """Splits sequences into the frames that a model sees and the frames that it has to predict.

    Args:
        dataset: A `tf.data.Dataset` of `[batch, frames, height, width, 1]`.
        input_frames: Positive integer, less than the number of frames.

    Returns:
        A `tf.data.Dataset` of pairs: the first `input_frames` frames, and the remaining frames.

    Raises:
        ValueError: `input_frames` is not as described.
    """
    input_frames = positive(input_frames, "input_frames")
    frames = dataset.element_spec.shape[1]
    if frames is not None and input_frames >= frames:
        raise ValueError(
            f"Expected `input_frames` to be less than the {frames} frames of a sequence. "
            f"Received: input_frames={input_frames}"
        )
    halves = dataset.map(lambda sequences: (sequences[:, :input_frames], sequences[:, input_frames:]), tf.data.AUTOTUNE)
    return halves.prefetch(tf.data.AUTOTUNE)


def draw(
    key: tf.Tensor, step: tf.Tensor, batch_size: int, digits_per_sequence: int, count: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the random numbers of a step.

    Returns:
        `(indices, positions, angles)`: indices of digits, `[batch, digits_per_sequence]`; initial positions (y, x) in
        the unit box, `[batch, digits_per_sequence, 2]`, float64; and angles in radians,
        `[batch, digits_per_sequence]`, float64.
    """
    shape = [batch_size, digits_per_sequence]
    positions = tf.random.stateless_uniform([*shape, 2], random_key(key, 0), dtype=tf.float64)
    angles = tf.random.stateless_uniform(shape, random_key(key, 1), 0.0, 2 * math.pi, tf.float64)
    return tf.reshape(digit_indices(key[0], step, batch_size * digits_per_sequence, count), shape), positions, angles


def digit_indices(seed: tf.Tensor, step: tf.Tensor, length: int, count: int) -> tf.Tensor:
    """Returns the indices of the digits of a step, `[length]`: its part of an endless series of permutations."""
    index = step * length + tf.range(length, dtype=tf.int64)
    permutation, index = index // count, index % count
    chosen = tf.zeros_like(index)
    for later in range((length + count - 2) // count + 1):  # as many permutations as a step can touch
        key = tf.stack([seed, permutation[0] + later])
        if count > SHUFFLED_AS_A_WHOLE:
            order = tf.random.experimental.index_shuffle(index, key, tf.constant(count - 1, tf.int64))
        else:
            order = tf.gather(tf.argsort(tf.random.stateless_uniform([count], random_key(key, 2))), index)
            order = tf.cast(order, tf.int64)
        chosen = tf.where(permutation == permutation[0] + later, order, chosen)
    return chosen


def fly(positions: tf.Tensor, velocities: tf.Tensor, frames: int) -> tf.Tensor:
    """Computes the positions in the unit box frame by frame: move, bounce, record.

    Args:
        positions: `[..., 2]`, where the digits start. The first frame shows them after their first move.
        velocities: `[..., 2]`, distance per frame.
        frames: Number of frames.

    Returns:
        `[..., frames, 2]`.
    """
    recorded = []
    for _ in range(frames):
        positions = positions + velocities
        velocities = tf.where((positions <= 0) | (positions >= 1), -velocities, velocities)
        positions = tf.clip_by_value(positions, tf.zeros_like(positions), tf.ones_like(positions))
        recorded.append(positions)
    return tf.stack(recorded, axis=-2)


def paste(digits: tf.Tensor, corners: tf.Tensor, size: int) -> tf.Tensor:
    """Draws digits on black frames; where digits overlap, the brighter pixel counts.

    All horizontal shifts of a digit are made once. Every row of a frame is then a copy of one row of one shift. Copying
    whole rows takes a third of the time of copying single pixels.

    Args:
        digits: `[batch, digits_per_sequence, height, width]`.
        corners: `[batch, digits_per_sequence, frames, 2]`, int32, row and column of the top left corner.
        size: Rows and columns of a frame.

    Returns:
        `[batch, frames, size, size]`, of the dtype of `digits`.
    """
    batch, digits_per_sequence, height, width = digits.shape
    room = size - width
    padded = tf.pad(digits, [[0, 0], [0, 0], [0, 1], [room, room]])  # the row below a digit is empty
    shifts = tf.stack([padded[..., room - x : room - x + size] for x in range(room + 1)], axis=3)
    row = tf.range(size) - corners[..., :1]
    row = tf.where((row >= 0) & (row < height), row, height)
    row += (height + 1) * tf.reshape(tf.range(batch * digits_per_sequence), [batch, digits_per_sequence, 1, 1])
    frames = tf.gather(tf.reshape(shifts, [-1, size]), row * (room + 1) + corners[..., 1:])
    return tf.reduce_max(frames, axis=1)


def _standardize(digits):
    """Checks the digits and converts them to uint8 or float32."""
    digits = np.asarray(digits)
    if digits.ndim != 3 or not digits.size:
        expected = "Expected `digits` to hold digits of shape (count, height, width)"
        raise ValueError(f"{expected}. Received: digits.shape={digits.shape}")
    if digits.dtype == np.uint8:
        return digits
    if not dtypes.is_floating(digits.dtype):
        expected = "Expected `digits` to be uint8, or floating-point in [0, 1]"
        raise ValueError(f"{expected}. Received: digits.dtype={digits.dtype}")
    low, high = digits.min(), digits.max()
    if not (low >= 0 and high <= 1):
        expected = "Expected `digits` of a floating-point dtype to lie in [0, 1]"
        raise ValueError(f"{expected}. Received: digits from {low} to {high}")
    return digits.astype(np.float32)
