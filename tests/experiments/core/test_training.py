# SPDX-License-Identifier: Apache-2.0
"""Trainings that stop, are killed and continue, in every precision."""

import itertools
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint, failures, losses, training
from tests.support import toy_experiment
from tests.support.toy_options import parsed
from tests.support.toy_processes import finish, toy_process


@pytest.fixture
def precision():
    """Returns a function that sets the dtype policy for one test."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def assert_same_state(path, other, position):
    (arrays, notes), (others, other_notes) = checkpoint.load(path), checkpoint.load(other)
    assert notes["position"] == other_notes["position"] == position
    assert len(arrays) == len(others) >= 4
    for i, (value, expected) in enumerate(zip(arrays, others)):
        assert value.dtype == expected.dtype and value.tobytes() == expected.tobytes(), f"array {i} differs"


def run_toy(out, *arguments):
    fixed = ["--iterations", "4", "--checkpoint-every", "2", "--no-deterministic"]
    with failures.one_sentence("The same command with --resume"):
        toy_experiment.main([*fixed, "--out", str(out), *arguments])


def train_toy(out, total=23, epoch=5, dropout=0.0, **arguments):
    def compile_model(model):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 7, 0.5, staircase=True)
        model.compile(keras.optimizers.Adam(schedule), losses.squared_error)

    def build():
        return toy_experiment.build(dropout)

    return training.train("toy", build, compile_model, toy_experiment.batches, total, epoch, out, **arguments)


def test_pieces_cover_the_training():
    stages = [(0, "a"), (10, "b"), (20, "c")]
    assert training.pieces(0, 33, 5, stages) == [(0, 10, "a"), (10, 20, "b"), (20, 30, "c"), (30, 33, "c")]
    assert training.pieces(12, 30, 5, stages) == [(12, 15, "b"), (15, 20, "b"), (20, 30, "c")]
    assert training.pieces(31, 33, 5, stages) == [(31, 33, "c")]
    assert training.pieces(33, 33, 5, stages) == []
    assert training.pieces(0, 3, 5, [(0, "a")]) == [(0, 3, "a")]
    for start in range(33):
        pieces = training.pieces(start, 33, 5, stages)
        assert [a for a, _, _ in pieces] == [start, *(b for _, b, _ in pieces[:-1])] and pieces[-1][1] == 33
        assert all((b - a) % 5 == 0 or a // 5 == (b - 1) // 5 for a, b, _ in pieces)


def test_stopped_in_the_middle_of_an_epoch_and_resumed(tmp_path):
    """The time limit is so short that every call ends after one step. The state of dropout is restored, too."""
    whole = train_toy(tmp_path / "whole", dropout=0.3)
    assert whole.steps == 23 and [entry["step"] for entry in whole.history] == [5, 10, 15, 20, 23]
    first = train_toy(tmp_path / "parts", dropout=0.3, time_limit=1e-6)
    parts = [first]
    for _ in range(3):  # the same call continues: steps of earlier calls do not count for its limit
        parts.append(train_toy(tmp_path / "parts", dropout=0.3, time_limit=1e-6, resume=True))
    assert [part.steps for part in parts] == [1, 2, 3, 4]
    last = train_toy(tmp_path / "parts", dropout=0.3, resume=True)
    assert last.steps == 23
    for part, later in itertools.pairwise([*parts, last]):
        assert later.seconds > part.seconds and later.processor_seconds > part.processor_seconds >= 0
    assert_same_state(tmp_path / "parts" / "toy.checkpoint", tmp_path / "whole" / "toy.checkpoint", 23)
    for value, expected in zip(last.network.get_weights(), whole.network.get_weights()):
        np.testing.assert_array_equal(value, expected)


def test_time_before_a_resumption_counts_but_is_not_limited(tmp_path):
    notes = {"name": "a", "position": 3, "seconds": 5e9, "processor_seconds": 7e9, "history": [], "settings": None}
    checkpoint.save(tmp_path / "state", [np.array(2.0)], notes)
    checkpointer = training.Checkpointer("a", tmp_path / "state", [tf.Variable(0.0)], limit=4e9)
    checkpointer.load(3)
    assert checkpointer.position == 3 and checkpointer.seconds >= 5e9 and checkpointer.processor_seconds >= 7e9
    assert not checkpointer.time_is_over()
    checkpointer.began -= 4e9
    assert checkpointer.time_is_over()


def test_saved_network_has_no_training_state(tmp_path):
    done = train_toy(tmp_path, total=2)
    model = keras.models.load_model(tmp_path / "toy.keras")
    assert getattr(model, "optimizer", None) is None
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(model(images), done.network(images))


def test_earlier_run_is_kept(tmp_path, capsys):
    train_toy(tmp_path, total=2)
    before = (tmp_path / "toy.checkpoint").read_bytes()
    train_toy(tmp_path, total=3)
    assert (tmp_path / "toy.checkpoint.previous").read_bytes() == before
    assert "belongs to an earlier run, renamed to toy.checkpoint.previous" in capsys.readouterr().out


def test_resume_never_mixes_two_runs(tmp_path, capsys):
    run_toy(tmp_path, "--seed", "1", "--baseline")
    states = [tmp_path / f"{name}.checkpoint" for name in ("baseline", "toy")]
    first = [state.read_bytes() for state in states]
    capsys.readouterr()
    run_toy(tmp_path, "--seed", "2")
    output = capsys.readouterr().out
    for state, content in zip(states, first):
        assert state.with_name(f"{state.name}.previous").read_bytes() == content
        assert f"{state}: belongs to an earlier run, renamed to {state.name}.previous." in output
    assert [state.exists() for state in states] == [False, True]

    run_toy(tmp_path, "--seed", "2", "--resume", "--baseline")
    run_toy(tmp_path / "whole", "--seed", "2", "--baseline")
    for state in states:
        assert_same_state(state, tmp_path / "whole" / state.name, 4)

    states[0].write_bytes(first[0])
    with pytest.raises(SystemExit, match=r"Expected --seed 1, as in .*baseline\.checkpoint\. Received: 2"):
        run_toy(tmp_path, "--seed", "2", "--resume", "--baseline")
    states[0].write_bytes(states[1].read_bytes())
    with pytest.raises(
        SystemExit, match=r"Expected .*baseline\.checkpoint to hold .* of baseline\. Received: .* of toy"
    ):
        run_toy(tmp_path, "--seed", "2", "--resume", "--baseline")


def test_state_after_the_end_of_the_training_is_an_error(tmp_path):
    train_toy(tmp_path, total=6)
    with pytest.raises(checkpoint.SetupError, match=r"the state of 5 steps or fewer\. Received: the state of 6 steps"):
        train_toy(tmp_path, total=5, resume=True)


def test_errors_of_keras_keep_their_traceback(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("of Keras")

    monkeypatch.setattr(training.Trainer, "fit", fail)
    with pytest.raises(ValueError, match="of Keras"):
        run_toy(tmp_path)
    (tmp_path / "toy.checkpoint").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"Expected .*toy\.checkpoint to hold the state of a training"):
        run_toy(tmp_path, "--resume")


@pytest.mark.legacy
@pytest.mark.parametrize("name", ["mixed_bfloat16", "float32"])
def test_policy_is_restored_after_the_training(tmp_path, precision, name):
    precision(name)
    done = training.train(
        "toy", toy_experiment.build, lambda model: model.compile("sgd", "mse"), toy_experiment.batches, 1, 1, tmp_path
    )
    assert keras.mixed_precision.global_policy().name == name
    assert all(layer.compute_dtype == "float32" for layer in done.network.layers)  # of the saved network


def test_mixed_precision_resumes_with_its_loss_scale(tmp_path, precision):
    precision("mixed_float16")

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    done = train_toy(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "parts", callbacks=[Stop()])
    train_toy(tmp_path / "parts", resume=True)
    assert_same_state(tmp_path / "parts" / "toy.checkpoint", tmp_path / "whole" / "toy.checkpoint", 23)
    arrays, _ = checkpoint.load(tmp_path / "whole" / "toy.checkpoint")
    assert any(np.array_equal(array, 2.0**15) for array in arrays)
    assert {layer.dtype_policy.name for layer in done.network.layers} == {"float32"}  # of the saved network
    assert keras.mixed_precision.global_policy().name == "mixed_float16"


def test_stages_change_the_arguments_of_the_network(tmp_path):
    calls = []

    @keras.saving.register_keras_serializable("toy")
    class Times(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layer = keras.layers.Conv2D(1, 1)

        def call(self, images, times=1):
            calls.append(times)
            return times * self.layer(images)

    def build():
        model = Times()
        model(np.zeros((1, 8, 8, 1), np.float32))
        return model

    asked = []

    def batches(first, end, times=1):
        asked.append((first, end, times))
        return toy_experiment.batches(first, end)

    def run(total, resume):
        calls.clear()
        asked.clear()
        stages = [(0, {"times": 2}), (4, {"times": 3})]
        compile_model = lambda model: model.compile("sgd", "mse")  # noqa: E731
        training.train("toy", build, compile_model, batches, total, 2, tmp_path, stages=stages, resume=resume)
        return [times for times in calls if times > 1]

    assert run(6, False) == [2, 3] and asked == [(0, 4, 2), (4, 6, 3)]  # traced once each
    assert run(8, True) == [3] and asked == [(6, 8, 3)]
    with pytest.raises(checkpoint.SetupError, match="Expected `stages` to start at 0 and at multiples of 2"):
        training.train("toy", build, None, batches, 6, 2, tmp_path, stages=[(0, {}), (3, {})])


# Moments at which consecutive runs are killed, and the step of the last complete checkpoint at that moment.
MOMENTS = {
    "step:1": None,  # before the first checkpoint
    "write:1": None,  # while the first checkpoint is written
    "renamed:1": 2,  # right after the first checkpoint is written
    "rename:1": 2,  # before the second checkpoint has its name
    "step:3": 4,  # in the middle of an epoch
    "write:2": 6,
}


@pytest.mark.slow
def test_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    arguments = ["--iterations", "11", "--checkpoint-every", "2", "--dropout", "0.2"]
    finish(toy_process(tmp_path / "whole", *arguments))
    state = tmp_path / "killed" / "toy.checkpoint"
    for moment, position in MOMENTS.items():
        process = toy_process(tmp_path / "killed", *arguments, "--resume", TOY_KILL_AT=moment)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, moment
        assert (checkpoint.load(state)[1]["position"] if state.exists() else None) == position, moment
    output = finish(toy_process(tmp_path / "killed", *arguments, "--resume"))
    assert "continues after step 6 of 11" in output
    assert_same_state(state, tmp_path / "whole" / "toy.checkpoint", 11)


def test_networks_that_baseline_asks_for():
    networks = {"dfn": 1, "baseline": 2}
    assert list(training.chosen_networks(parsed(), networks)) == ["dfn"]
    assert list(training.chosen_networks(parsed("--baseline"), networks)) == ["dfn", "baseline"]
    assert list(training.chosen_networks(parsed("--baseline", "only"), networks)) == ["baseline"]
