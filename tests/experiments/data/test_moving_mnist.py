# SPDX-License-Identifier: Apache-2.0
"""Tests moving digits: against a slow implementation of the rules, and against sequences of another implementation."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.data import moving_mnist, step_datasets

pytestmark = pytest.mark.legacy
DIGITS = np.random.default_rng(0).integers(1, 256, (50, 28, 28)).astype(np.uint8)
SMALL = np.random.default_rng(1).integers(1, 256, (7, 5, 4)).astype(np.uint8)


def batches(*arguments, **keywords):
    return list(data.moving_digits(*arguments, **keywords).as_numpy_iterator())


def draw(seed, step, batch, digits_per_sequence, count):
    key = tf.constant([seed, step], tf.int64)
    draws = moving_mnist.draw(key, tf.constant(step, tf.int64), batch, digits_per_sequence, count)
    return [values.numpy() for values in draws]


def fly_slowly(start, angle, frames, speed):
    """Moves one digit in plain Python floats: move, bounce, record."""
    place, velocity = list(map(float, start)), [math.sin(angle), math.cos(angle)]
    recorded = []
    for _ in range(frames):
        for axis in (0, 1):
            place[axis] += velocity[axis] * speed
            if place[axis] <= 0:
                place[axis], velocity[axis] = 0.0, -velocity[axis]
            elif place[axis] >= 1:
                place[axis], velocity[axis] = 1.0, -velocity[axis]
        recorded.append(tuple(place))
    return recorded


def draw_slowly(digits, chosen, starts, angles, frames, size, speed):
    """Draws `[batch, frames, size, size]` in the dtype of the digits, pixel by pixel."""
    height, width = digits.shape[1:]
    result = np.zeros([len(chosen), frames, size, size], digits.dtype)
    for b, sequence in enumerate(result):
        for digit, start, angle in zip(chosen[b], starts[b], angles[b]):
            for frame, (y, x) in zip(sequence, fly_slowly(start, angle, frames, speed)):
                top, left = math.floor(y * (size - height)), math.floor(x * (size - width))
                for i in range(height):
                    for j in range(width):
                        frame[top + i, left + j] = max(frame[top + i, left + j], digits[digit, i, j])
    return result


CASES = {
    "paper": (DIGITS, 2, {"frames": 20}),
    "one digit": (DIGITS, 1, {"frames": 6, "digits_per_sequence": 1}),
    "three digits": (DIGITS, 2, {"frames": 5, "digits_per_sequence": 3}),
    "half size": (DIGITS[:, ::2, ::2], 3, {"frames": 12, "size": 32}),
    "not square": (SMALL, 3, {"frames": 9, "size": 11, "speed": 0.35}),
    "no room": (SMALL, 2, {"frames": 3, "size": 5}),
    "very fast": (SMALL, 2, {"frames": 9, "size": 20, "speed": 1.7}),
    "at rest": (SMALL, 2, {"frames": 3, "size": 20, "speed": 0}),
    "floats": ((SMALL / 255).astype(np.float64), 2, {"frames": 4, "size": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_sequences_follow_the_rules(case):
    digits, batch, keywords = CASES[case]
    options = {"digits_per_sequence": 2, "size": 64, "speed": 0.1, **keywords}
    made = batches(digits, batch, steps=3, seed=11, **keywords)
    assert len(made) == 3
    for step, sequences in enumerate(made):
        draws = draw(11, step, batch, options["digits_per_sequence"], len(digits))
        expected = draw_slowly(digits, *draws, options["frames"], options["size"], options["speed"])[..., None]
        assert sequences.shape == expected.shape and sequences.dtype == np.float32
        scale = 255 if digits.dtype == np.uint8 else 1
        np.testing.assert_allclose(sequences, expected / scale, rtol=1e-6, atol=0)
        assert sequences.max() > 0.3


def test_places_stay_in_the_box_and_keep_their_speed():
    _, starts, angles = draw(3, 0, 500, 2, 10)
    velocities = np.stack([np.sin(angles), np.cos(angles)], axis=-1) * 0.1
    places = moving_mnist.fly(starts, velocities, 40).numpy() * 36
    assert places.shape == (500, 2, 40, 2)
    assert places.min() == 0 and places.max() == 36  # digits that bounce touch the border
    moved = np.diff(places, axis=2)
    inside = np.all((places > 0) & (places < 36), axis=-1)
    free = inside[:, :, :-1] & inside[:, :, 1:]
    assert 0.4 < free.mean() < 0.95
    np.testing.assert_allclose(np.linalg.norm(moved, axis=-1)[free], 3.6, rtol=1e-12)
    assert np.abs(moved).max() <= 3.6 + 1e-12  # a window of 9 x 9 covers every motion
    np.testing.assert_allclose(places[..., 0, :], (np.clip(starts + velocities, 0, 1)) * 36, rtol=1e-12)


def test_a_digit_that_just_reaches_the_wall_turns_round():
    start, velocity = np.array([[0.25, 0.5], [0.125, 0.875]]), np.array([[-0.125, 0.25], [-0.25, 0.5]])
    y, x = np.moveaxis(moving_mnist.fly(start, velocity, 4).numpy(), -1, 0)
    np.testing.assert_array_equal(y, [[0.125, 0.0, 0.125, 0.25], [0.0, 0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(x, [[0.75, 1.0, 0.75, 0.5], [1.0, 0.5, 0.0, 0.5]])


def test_draws_are_uniform():
    chosen, starts, angles = draw(0, 5, 4000, 2, 100)
    assert set(chosen.ravel()) == set(range(100))
    assert starts.min() >= 0 and starts.max() < 1 and angles.min() >= 0 and angles.max() < 2 * math.pi
    for values in (starts[..., 0], starts[..., 1], angles / (2 * math.pi)):
        counts = np.histogram(values, 10, (0, 1))[0]
        assert np.abs(counts - 800).max() < 5 * math.sqrt(800)
    for a, b in ((starts[..., 0], starts[..., 1]), (starts[..., 0], angles), (starts[..., 0][1:], starts[..., 0][:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("count, length", [(50, 32), (7, 32), (1, 4), (32, 32), (33, 32), (2500, 500)])
def test_every_permutation_holds_all_digits_once(count, length):
    steps = 3 * count // math.gcd(count, length)
    indices = np.concatenate(
        [
            moving_mnist.digit_indices(tf.constant(4, tf.int64), tf.constant(step, tf.int64), length, count).numpy()
            for step in range(steps)
        ]
    )
    permutations = indices.reshape(-1, count)
    assert len(permutations) == 3 * length // math.gcd(count, length)
    expected = np.broadcast_to(np.arange(count), permutations.shape)
    np.testing.assert_array_equal(np.sort(permutations, axis=1), expected)
    if count > 5:
        assert len(np.unique(permutations, axis=0)) > 1
        assert np.any(permutations[0] != np.arange(count))


def test_a_step_depends_on_seed_and_step_alone():
    options = {"frames": 4, "size": 12}
    whole = batches(SMALL, 3, steps=6, seed=5, **options)
    again = batches(SMALL, 3, steps=6, seed=5, **options)
    resumed = batches(SMALL, 3, steps=6, start=4, seed=5, **options)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(whole[4:], resumed)
    for other in (batches(SMALL, 3, steps=6, seed=6, **options), whole[1:] + whole[:1]):
        assert all(np.any(a != b) for a, b in zip(whole, other))
    assert batches(SMALL, 3, steps=4, start=6, **options) == []
    assert len(batches(SMALL, 3, steps=1, seed=-(2**63), **options)) == 1
    assert len(batches(SMALL, 3, steps=2**40 + 1, start=2**40, **options)) == 1


def test_shapes_are_static_and_halves_are_split():
    dataset = data.moving_digits(SMALL, 3, steps=2, frames=7, size=12)
    assert dataset.element_spec == tf.TensorSpec([3, 7, 12, 12, 1], tf.float32)
    assert int(dataset.cardinality()) == 2
    pairs = data.split_frames(dataset, 4)
    assert [spec.shape.as_list() for spec in pairs.element_spec] == [[3, 4, 12, 12, 1], [3, 3, 12, 12, 1]]
    for whole, (inputs, targets) in zip(dataset.as_numpy_iterator(), pairs.as_numpy_iterator()):
        np.testing.assert_array_equal(whole, np.concatenate([inputs, targets], axis=1))
    for wrong in (0, 7, 2.0):
        with pytest.raises(ValueError, match=f"Expected `input_frames` to be .*Received: input_frames={wrong}"):
            data.split_frames(dataset, wrong)


def test_replicas_share_a_batch(python):
    done = python(
        "-c",
        """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from examples.experiments import data
digits = np.random.default_rng(0).integers(0, 256, (50, 6, 6)).astype(np.uint8)
pairs = data.split_frames(data.moving_digits(digits, 4, 3, size=16, frames=5), 3)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for alone, shared in zip(pairs, strategy.experimental_distribute_dataset(pairs)):
    for a, b in zip(alone, shared):
        parts = strategy.experimental_local_results(b)
        assert [len(part) for part in parts] == [2, 2]
        np.testing.assert_array_equal(a, tf.concat(parts, axis=0))
print("shared")
""",
    )
    assert done.returncode == 0 and done.stdout.strip().endswith("shared"), done.stderr[-3000:]


ERRORS = {
    "rank": (dict(digits=DIGITS[0]), r"`digits` to hold digits of shape .*digits\.shape=\(28, 28\)"),
    "empty": (dict(digits=DIGITS[:0]), r"`digits` to hold digits .*digits\.shape=\(0, 28, 28\)"),
    "integers": (dict(digits=DIGITS.astype(int)), r"`digits` to be uint8, or floating-point .*digits\.dtype=int64"),
    "range": (dict(digits=DIGITS * 1.0), r"`digits` of a floating-point dtype to lie in \[0, 1\].*to 255\.0"),
    "nan": (dict(digits=np.full((1, 2, 2), np.nan)), r"`digits` of a floating-point dtype to lie .*from nan to nan"),
    "batch": (dict(batch_size=0), r"`batch_size` to be a positive integer.*batch_size=0"),
    "frames": (dict(frames=2.5), r"`frames` to be a positive integer.*frames=2\.5"),
    "each": (dict(digits_per_sequence=0), r"`digits_per_sequence` to be a positive .*digits_per_sequence=0"),
    "size": (dict(size=27), r"`size` to be at least that of a digit, 28 x 28.*size=27"),
    "speed": (dict(speed=-0.1), r"`speed` to be a non-negative number.*speed=-0\.1"),
    "speed nan": (dict(speed=math.nan), r"`speed` to be a non-negative number.*speed=nan"),
    "speed text": (dict(speed="fast"), r"`speed` to be a non-negative number.*speed='fast'"),
    "steps": (dict(steps=-1), r"`steps` to be a non-negative integer.*steps=-1"),
    "start": (dict(start=1.0), r"`start` to be a non-negative integer.*start=1\.0"),
    "seed": (dict(seed=2**63), rf"`seed` to be an integer of 64 bits.*seed={2**63}"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    wrong, message = ERRORS[case]
    with pytest.raises(ValueError, match="Expected " + message):
        data.moving_digits(**{"digits": DIGITS, "batch_size": 2, "steps": 1, **wrong})


def test_random_keys_differ():
    keys = [tuple(step_datasets.random_key(tf.constant([9, 5], tf.int64), number).numpy()) for number in range(3)]
    assert len(set(keys)) == 3 and keys[0] == (9, 5)


def test_statistics_agree_with_another_implementation(real_data):
    with np.load(real_data("moving_mnist") / "generated_test_300.npz") as arrays:
        others = arrays["sequences"] / 255  # of another implementation
    digits = data.load_mnist("test", real_data("mnist")).images[..., 0]
    batches = data.moving_digits(digits, 300, steps=2, seed=1).as_numpy_iterator()
    generated = np.concatenate([sequences[..., 0] for sequences in batches])

    def statistics(sequences):
        """Computes, for each sequence, brightness, share of lit pixels, change per frame, and where the light is."""
        means = sequences.mean(axis=(1, 2, 3))
        lit = (sequences > 0).mean(axis=(1, 2, 3))
        change = np.abs(np.diff(sequences, axis=1)).mean(axis=(1, 2, 3)) / means
        centre = sequences[:, :, 16:48, 16:48].sum(axis=(1, 2, 3)) / sequences.sum(axis=(1, 2, 3))
        first = np.abs(sequences[:, 0, :, 32:].sum(axis=(1, 2)) - sequences[:, 0, :, :32].sum(axis=(1, 2)))
        return np.stack([means, lit, change, centre, first])

    a, b = statistics(generated), statistics(others)
    deviation = np.sqrt(a.var(axis=1) / a.shape[1] + b.var(axis=1) / b.shape[1])
    distance = (a.mean(axis=1) - b.mean(axis=1)) / deviation
    assert np.all(np.abs(distance) < 4), distance


def test_a_model_trains_on_the_pairs():
    keras.utils.set_random_seed(0)
    pairs = data.split_frames(data.moving_digits(SMALL, 4, steps=10, frames=4, size=12), 2)
    model = keras.Sequential([keras.layers.Conv3D(1, 1)])
    model.compile("sgd", "mse")
    history = model.fit(pairs, epochs=2, steps_per_epoch=5, shuffle=False, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
