# SPDX-License-Identifier: Apache-2.0
"""What the examples share: trainings that can be stopped and killed, strategies, precisions, errors, options."""

import argparse
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_experiment

import checkpoint
import common
import harness
import training

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOY = str(ROOT / "tests" / "toy_experiment.py")


@pytest.fixture
def precision():
    """Sets a policy of mixed precision for one test."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def toy_process(out, *arguments, **environment):
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
    command = [sys.executable, TOY, *arguments, "--out", str(out)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, f"{output}\n{errors[-4000:]}"
    return output


def assert_same_state(path, other, position):
    (arrays, notes), (others, other_notes) = checkpoint.load(path), checkpoint.load(other)
    assert notes["position"] == other_notes["position"] == position
    assert len(arrays) == len(others) >= 4
    for i, (value, expected) in enumerate(zip(arrays, others)):
        assert value.dtype == expected.dtype and value.tobytes() == expected.tobytes(), f"array {i} differs"


def train_toy(out, total=23, epoch=5, dropout=0.0, **arguments):
    def compile_model(model):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 7, 0.5, staircase=True)
        model.compile(keras.optimizers.Adam(schedule), common.squared_error)

    def build():
        return toy_experiment.build(dropout)

    return training.train("toy", build, compile_model, toy_experiment.batches, total, epoch, out, **arguments)


# Files


WRITER = """
import sys
sys.path.insert(0, "examples")
import checkpoint, numpy as np
number = 0
while True:
    number += 1
    checkpoint.save(sys.argv[1], [np.full((300, 1000), number), np.array(number)], {"number": number})
    if number == 1:
        print("written", flush=True)
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path):
    path, numbers = tmp_path / "state", []
    moments = random.Random(3)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"written\n"
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
        (large, small), notes = checkpoint.load(path)
        assert small == notes["number"] and np.all(large == small)
        numbers.append(int(small))
    assert max(numbers) > 1
    assert {file.name for file in tmp_path.iterdir()} <= {"state", "state.part"}


@pytest.mark.parametrize("content", [b"", b"nothing of ours", None])
def test_damaged_state_is_an_error(tmp_path, content):
    path = tmp_path / "state"
    checkpoint.save(path, [np.zeros(1000)], {})
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(ValueError, match=r"Expected .*state to hold the state of a training\. Received: "):
        checkpoint.load(path)


def test_state_of_another_model_is_an_error(tmp_path):
    variables = [tf.Variable(tf.zeros([3, 2])), tf.Variable(0.0)]
    for arrays, message in {
        (2, 3): r"Received: 2, the first difference is \(3, 2\) to \(2, 3\)",
        (3, 2): r"Expected state to hold the 2 variables .* Received: 1, the first difference is 2 to 1",
    }.items():
        values = [np.ones(arrays), np.ones(())][: 2 if arrays == (2, 3) else 1]
        with pytest.raises(ValueError, match=message):
            checkpoint.restore(variables, values, "state")
    assert np.all(variables[0].numpy() == 0)  # nothing is restored in part


# Training


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
    """By the time limit, which is over after the first step of each call; with dropout, whose state counts too."""
    whole = train_toy(tmp_path / "whole", dropout=0.3)
    assert whole.steps == 23 and [entry["step"] for entry in whole.history] == [5, 10, 15, 20, 23]
    first = train_toy(tmp_path / "parts", dropout=0.3, time_limit=1e-6)
    assert first.steps == 0 or first.steps == 1  # the clock runs from before the first step
    limit = first.seconds
    for _ in range(3):
        limit += 1e-3
        part = train_toy(tmp_path / "parts", dropout=0.3, time_limit=limit, resume=True)
        limit = part.seconds
    assert 0 < part.steps < 23
    last = train_toy(tmp_path / "parts", dropout=0.3, resume=True)
    assert last.steps == 23 and last.seconds > part.seconds
    assert_same_state(tmp_path / "parts" / "toy.checkpoint", tmp_path / "whole" / "toy.checkpoint", 23)
    for value, expected in zip(last.network.get_weights(), whole.network.get_weights()):
        np.testing.assert_array_equal(value, expected)


def test_saved_model_needs_nothing_of_the_training(tmp_path):
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
    assert "of an earlier run, is now toy.checkpoint.previous" in capsys.readouterr().out


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
    assert {layer.dtype_policy.name for layer in done.network.layers} == {"float32"}  # what is saved
    assert keras.mixed_precision.global_policy().name == "mixed_float16"


def test_stages_change_what_the_network_is_called_with(tmp_path):
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
    with pytest.raises(ValueError, match="Expected `stages` to start at 0 and at multiples of 2"):
        training.train("toy", build, None, batches, 6, 2, tmp_path, stages=[(0, {}), (3, {})])


@pytest.mark.slow
def test_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    arguments = ["--iterations", "400", "--checkpoint-every", "2", "--dropout", "0.2"]
    finish(toy_process(tmp_path / "whole", *arguments))
    state = tmp_path / "killed" / "toy.checkpoint"
    moments, positions = random.Random(5), []
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = toy_process(tmp_path / "killed", *arguments, "--resume")
        while process.poll() is None and (state.stat().st_mtime_ns if state.exists() else 0) == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.7))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        positions.append(checkpoint.load(state)[1]["position"])
    assert 0 < positions[0] < positions[1] < positions[2] < 400
    output = finish(toy_process(tmp_path / "killed", *arguments, "--resume"))
    assert f"continues after step {positions[-1]} of 400" in output
    assert_same_state(state, tmp_path / "whole" / "toy.checkpoint", 400)


@pytest.mark.slow
def test_strategies_train_the_same(tmp_path):
    expected = finish(toy_process(tmp_path / "one"))
    assert "loss" in expected
    finish(toy_process(tmp_path / "mirrored", "--devices", "2", "--strategy", "mirrored"))

    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        environment = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}
        workers.append(toy_process(tmp_path / "workers", "--strategy", "multi-worker", **environment))
    chief, other = (finish(worker) for worker in workers)
    assert "loss" in chief and "loss" not in other  # only one writes

    reference, _ = checkpoint.load(tmp_path / "one" / "toy.checkpoint")
    for name in ("mirrored", "workers"):
        arrays, notes = checkpoint.load(tmp_path / name / "toy.checkpoint")
        assert notes["position"] == 20
        for value, expected in zip(arrays, reference):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
        assert json.loads((tmp_path / name / "results.json").read_text())["training"]["iterations"] == 20


def free_ports(count):
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_multi_worker_needs_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"Expected the variable TF_CONFIG to describe .* Received: TF_CONFIG=None"):
        training.make_strategy("multi-worker")


# Options


def parser():
    made = argparse.ArgumentParser()
    made.add_argument("--recipe", choices=("a", "b"), default="a")
    harness.add_options(made, "toy", ["onnx"])
    harness.add_training_options(made)
    return made


RECIPES = {
    "a": {"iterations": 100, "batch_size": 8, "learning_rate": 0.1, "schedule": "cosine"},
    "b": {"iterations": 200, "batch_size": 8, "learning_rate": 0.2, "schedule": "paper", "halve_every": 50},
}
SMOKE = {"iterations": 4, "checkpoint_every": 2}


def parsed(*arguments):
    return harness.parse(parser(), arguments, SMOKE, RECIPES)


def test_given_arguments_come_before_the_recipe_and_smoke_before_both():
    assert (parsed().iterations, parsed().halve_every, parsed().checkpoint_every) == (100, 4000, 200)
    assert (parsed("--recipe", "b").iterations, parsed("--recipe", "b").halve_every) == (200, 50)
    assert parsed("--recipe", "b", "--iterations", "7").iterations == 7
    smoke = parsed("--smoke", "--recipe", "b", "--learning-rate", "3")
    assert (smoke.iterations, smoke.checkpoint_every, smoke.learning_rate) == (4, 2, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--iterations", "0"], "--iterations: expected an integer above zero, received '0'"),
        (["--learning-rate", "inf"], "--learning-rate: expected a number above zero, received 'inf'"),
        (["--warmup", "2"], "--warmup: expected a number from 0 to 1, received '2'"),
        (["--seed", "-1"], "--seed: expected an integer from 0"),
        (["--time-limit", "soon"], "--time-limit: expected a number above zero, received 'soon'"),
        (["--smoke", "--iterations", "5"], "--iterations: not allowed with --smoke, which sets it to 4"),
        (["--steps-per-execution", "3"], "--iterations: expected a multiple of --steps-per-execution 3, received 100"),
        (["--time-limit", "1", "--strategy", "multi-worker"], "--time-limit: expected one worker"),
        (["--out", __file__], "--out: expected a folder, received the file"),
        (["--strategy", "all"], "--strategy: invalid choice: 'all'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parsed(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_resume_needs_the_same_settings(tmp_path):
    def begin(*arguments):
        return harness.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments))

    assert begin().settings["iterations"] == 100
    begin("--resume", "--time-limit", "3", "--baseline")
    with pytest.raises(SystemExit, match=r"--resume: expected --batch-size 8, as in .*settings\.json\. Received: 4"):
        begin("--resume", "--batch-size", "4")


def test_learning_rates():
    paper = harness.learning_rate(parsed("--recipe", "b", "--baseline-learning-rate", "0.04"))
    assert [float(paper(step)) for step in (0, 49, 50, 199)] == pytest.approx([0.2, 0.2, 0.1, 0.025])
    twin = harness.learning_rate(parsed("--recipe", "b", "--baseline-learning-rate", "0.04"), baseline=True)
    assert float(twin(0)) == pytest.approx(0.04)
    cosine = harness.learning_rate(parsed("--warmup", "0.2"))
    expected = [0, 0.05, 0.1, 0.1 * (1 + math.cos(math.pi / 2)) / 2, 0]
    assert [float(cosine(step)) for step in (0, 10, 20, 60, 100)] == pytest.approx(expected, abs=1e-7)
    assert float(harness.learning_rate(parsed("--warmup", "0"))(0)) == pytest.approx(0.1)
    assert harness.learning_rate(parsed("--schedule", "constant")) == 0.1


def test_adam_is_that_of_the_paper():
    model = training.Trainer(toy_experiment.build())
    harness.compile_with(parsed(), common.squared_error)(model)
    config = model.optimizer.get_config()
    assert (config["epsilon"], config["beta_1"], config["beta_2"]) == (1e-8, 0.9, 0.999)
    assert config["global_clipnorm"] is None
    harness.compile_with(parsed("--clip-norm", "0.5"), common.squared_error)(model)
    assert model.optimizer.get_config()["global_clipnorm"] == 0.5


def test_networks_that_baseline_asks_for():
    networks = {"dfn": 1, "baseline": 2}
    assert list(harness.chosen_networks(parsed(), networks)) == ["dfn"]
    assert list(harness.chosen_networks(parsed("--baseline"), networks)) == ["dfn", "baseline"]
    assert list(harness.chosen_networks(parsed("--baseline", "only"), networks)) == ["baseline"]


# Errors


def test_clipped_bce():
    generator = np.random.default_rng(0)
    targets, predictions = generator.random((2, 5, 4, 4, 1)).astype(np.float32)
    expected = -(targets * np.log(predictions) + (1 - targets) * np.log(1 - predictions))
    np.testing.assert_allclose(common.clipped_bce(targets, predictions), expected[..., 0], rtol=2e-5)
    epsilon = np.finfo(np.float32).eps
    outside = np.array([[-3.0], [0.0], [1.0], [4.0]], np.float32)
    np.testing.assert_allclose(common.clipped_bce(np.ones((4, 1)), outside)[:2], -np.log(epsilon), rtol=1e-6)
    np.testing.assert_allclose(common.clipped_bce(np.zeros((4, 1)), outside)[2:], -np.log(epsilon), rtol=1e-6)
    assert common.clipped_bce(np.ones((4, 1), np.float16), outside.astype(np.float16)).dtype == tf.float32


def test_errors_per_image():
    generator = np.random.default_rng(0)
    batches = [tuple(generator.random((2, count, 3, 6, 5, 1))) for count in (4, 3)]
    predictors = {"zero": np.zeros_like, "last": lambda inputs: inputs[:, -1:]}
    figures = common.errors_per_image(common.squared_error, predictors, batches)
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches))
    expected = 4096 * np.mean((targets - inputs[:, -1:]) ** 2, axis=(0, 2, 3, 4))
    assert figures["last"]["per_frame"] == pytest.approx(expected, rel=1e-5)
    assert figures["last"]["mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert figures["zero"]["mean"] == pytest.approx(4096 * np.mean(targets**2), rel=1e-5)
    assert figures["zero"]["images"] == 21

    still = common.errors_per_image(common.squared_error, {"zero": np.zeros_like}, [(inputs[:, 0], targets[:, 0])])
    assert still["zero"]["per_frame"] == pytest.approx([4096 * np.mean(targets[:, 0] ** 2)], rel=1e-5)
