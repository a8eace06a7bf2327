# SPDX-License-Identifier: Apache-2.0
"""Moving MNIST: digits that fly straight ahead inside a box and bounce off its walls, as many sequences as wanted.

    digits = load_digits("train")
    sequences = split_frames(moving_digits(digits, batch_size=16, steps=20_000), input_frames=10)

A step is plain TensorFlow ops without state, so it runs in the threads of tf.data, beside the training.

Rules: Srivastava et al., 2015, https://arxiv.org/abs/1502.04681; as used in Dynamic Filter Networks,
https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import math

import numpy as np
import tensorflow as tf

from examples.experiments.data.step_datasets import by_steps, draws
from keras_dynfilter.ops.checks import positive

TURN = 2 * math.pi
FEW = 2000  # so many digits are shuffled as a whole; among more, each is found on its own, which is slow among few


def moving_digits(digits, batch_size, steps, start=0, seed=0, frames=20, digits_per_sequence=2, size=64, speed=0.1):
    """Batches of sequences of moving digits.

    Every digit starts anywhere in the box and flies in any direction. In each frame it first moves, then bounces: a
    coordinate outside the box is set to its border, and that component of the velocity turned round. Digits overlap
    by the maximum of their pixels. The digits of a data set are walked through in random order, then in another one.

    Step `i` is a function of `seed` and `i` alone, so a training that goes on at `start` sees what it would have seen
    without the break.

    Args:
        digits: Digits, `[count, height, width]`, uint8, or floating-point in `[0, 1]`.
        batch_size: Positive integer, sequences of a step.
        steps: The step to end before.
        start: The step to start with.
        seed: Integer seed.
        frames: Positive integer, frames of a sequence.
        digits_per_sequence: Positive integer.
        size: Positive integer, rows and columns of a frame; not less than those of a digit.
        speed: Distance that a digit flies per frame, in units of the box that its corner moves in: 0.1 of
            64 - 28 pixels is 3.6 pixels.

    Returns:
        A `tf.data.Dataset` of `[batch, frames, size, size, 1]`, float32 in `[0, 1]`, `steps - start` batches long.

    Raises:
        ValueError: An argument is not as described.
    """
    digits = _standardize(digits)
    height, width = digits.shape[1:]
    batch_size, frames = positive(batch_size, "batch_size"), positive(frames, "frames")
    each, size = positive(digits_per_sequence, "digits_per_sequence"), positive(size, "size")
    if size < max(height, width):
        raise ValueError(f"Expected `size` to be at least that of a digit, {height} x {width}. Received: size={size}")
    if isinstance(speed, bool) or not isinstance(speed, (int, float, np.number)) or not 0 <= speed < math.inf:
        raise ValueError(f"Expected `speed` to be a number, 0 or more. Received: speed={speed!r}")
    speed = float(speed)
    box = tf.constant([size - height, size - width], tf.float64)
    images = tf.constant(digits)

    def sequences(key, step):
        chosen, places, angles = draw(key, step, batch_size, each, len(digits))
        velocities = tf.stack([tf.sin(angles), tf.cos(angles)], axis=-1) * speed
        corners = tf.cast(tf.floor(fly(places, velocities, frames) * box), tf.int32)
        canvas = paste(tf.gather(images, chosen), corners, size)
        canvas = tf.cast(canvas, tf.float32) / 255.0 if canvas.dtype == tf.uint8 else canvas
        return tf.ensure_shape(canvas[..., None], [batch_size, frames, size, size, 1])

    return by_steps(sequences, steps, start, seed)


def split_frames(dataset, input_frames):
    """Splits sequences into what a model sees and what it has to predict.

    Args:
        dataset: A `tf.data.Dataset` of `[batch, frames, height, width, 1]`.
        input_frames: Positive integer, less than the number of frames.

    Returns:
        A `tf.data.Dataset` of pairs: the first `input_frames` frames, and the others.

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


def draw(key, step, batch_size, each, count):
    """The random numbers of a step.

    Returns:
        Indices of digits and angles in radians, `[batch, each]`, and start places `[batch, each, 2]` (y, x) in the
        unit box. Places and angles are float64.
    """
    shape = [batch_size, each]
    places = tf.random.stateless_uniform([*shape, 2], draws(key, 0), dtype=tf.float64)
    angles = tf.random.stateless_uniform(shape, draws(key, 1), 0.0, TURN, tf.float64)
    return tf.reshape(walk(key[0], step, batch_size * each, count), shape), places, angles


def walk(seed, step, length, count):
    """Indices `[length]` of the digits of a step: its part of an endless walk, every `count` of which visit all."""
    index = step * length + tf.range(length, dtype=tf.int64)
    visit, index = index // count, index % count
    chosen = tf.zeros_like(index)
    for later in range((length + count - 2) // count + 1):  # as many walks as a step can touch
        key = tf.stack([seed, visit[0] + later])
        if count > FEW:
            order = tf.random.experimental.index_shuffle(index, key, tf.constant(count - 1, tf.int64))
        else:
            order = tf.gather(tf.argsort(tf.random.stateless_uniform([count], draws(key, 2))), index)
            order = tf.cast(order, tf.int64)
        chosen = tf.where(visit == visit[0] + later, order, chosen)
    return chosen


def fly(places, velocities, frames):
    """Places in the unit box, frame by frame: move, bounce, record.

    Args:
        places: `[..., 2]`, where the digits start; this is not yet a frame.
        velocities: `[..., 2]`, distance per frame.
        frames: Number of frames.

    Returns:
        `[..., frames, 2]`.
    """
    recorded = []
    for _ in range(frames):
        places = places + velocities
        velocities = tf.where((places <= 0) | (places >= 1), -velocities, velocities)
        places = tf.clip_by_value(places, tf.zeros_like(places), tf.ones_like(places))
        recorded.append(places)
    return tf.stack(recorded, axis=-2)


def paste(digits, corners, size):
    """Draws digits on black frames, by the maximum where they overlap.

    All horizontal shifts of a digit are made once; every row of a frame is then one of their rows, which is copied
    as a whole. This takes a third of the time of placing single pixels.

    Args:
        digits: `[batch, each, height, width]`.
        corners: `[batch, each, frames, 2]`, int32, row and column of the top left corner.
        size: Rows and columns of a frame.

    Returns:
        `[batch, frames, size, size]`, of the dtype of `digits`.
    """
    batch, each, height, width = digits.shape
    room = size - width
    padded = tf.pad(digits, [[0, 0], [0, 0], [0, 1], [room, room]])  # the row below a digit is empty
    shifts = tf.stack([padded[..., room - x : room - x + size] for x in range(room + 1)], axis=3)
    row = tf.range(size) - corners[..., :1]
    row = tf.where((row >= 0) & (row < height), row, height)
    row += (height + 1) * tf.reshape(tf.range(batch * each), [batch, each, 1, 1])
    frames = tf.gather(tf.reshape(shifts, [-1, size]), row * (room + 1) + corners[..., 1:])
    return tf.reduce_max(frames, axis=1)


def _standardize(digits):
    """Digits as they are drawn: uint8, or float32."""
    digits = np.asarray(digits)
    if digits.ndim != 3 or not digits.size:
        expected = "Expected `digits` to hold digits of shape (count, height, width)"
        raise ValueError(f"{expected}. Received: digits.shape={digits.shape}")
    if digits.dtype == np.uint8:
        return digits
    if not np.issubdtype(digits.dtype, np.floating):
        expected = "Expected `digits` to be uint8, or floating-point in [0, 1]"
        raise ValueError(f"{expected}. Received: digits.dtype={digits.dtype}")
    low, high = digits.min(), digits.max()
    if not (low >= 0 and high <= 1):
        expected = "Expected `digits` of a floating-point dtype to lie in [0, 1]"
        raise ValueError(f"{expected}. Received: digits from {low} to {high}")
    return digits.astype(np.float32)
