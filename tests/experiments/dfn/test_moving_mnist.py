# SPDX-License-Identifier: Apache-2.0
"""Moving MNIST as a user runs it: options, curriculum, errors, the whole smoke run."""

import functools
import json
import sys

import keras
import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.core import checkpoint
from examples.experiments.dfn import moving_mnist
from examples.experiments.dfn import moving_mnist_sequences as sequences
from keras_dynfilter import models

# Boxes of different sizes and greys.
DIGITS = np.zeros((30, 28, 28), np.uint8)
for i, (top, left, grey) in enumerate(np.random.default_rng(0).integers((2, 2, 60), (12, 12, 250), (30, 3))):
    DIGITS[i, top : 28 - left, left : 28 - top] = grey
    DIGITS[i, 12:14, 12:16] = 255
# The smallest sizes: a run takes seconds.
TINY = ["--size", "16", "--width", "0.05", "--input-frames", "3", "--output-frames", "2", "--batch-size", "2"]
TINY += ["--checkpoint-every", "2", "--test-sequences", "4", "--no-deterministic"]
TEN = ["--input-frames", "10", "--output-frames", "10"]


@pytest.fixture
def digits(monkeypatch):
    """Replaces the digits, so that they need neither files nor a download."""
    replace_digits(monkeypatch, {"train": DIGITS[:20], "test": DIGITS[20:]})


def replace_digits(monkeypatch, digits):
    """Replaces the loader by a function that returns `digits`, by split, as rendered digits."""

    def load(split, data_dir, source):
        assert split == "train" or source == "rendered"
        return data.LabelledImages(digits[split][..., None], np.zeros(len(digits[split])), "rendered")

    monkeypatch.setattr(data, "load_mnist", load)


def run(out, *arguments):
    assert moving_mnist.main([*TINY, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def only_train(monkeypatch, out, *arguments, callbacks=()):
    """Runs the script, which is interrupted after its training, or by a callback."""

    def interrupt(*_):
        raise KeyboardInterrupt

    train_networks = moving_mnist.training.train_networks
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sequences, "test_sets", lambda *_: {})
        patch.setattr(moving_mnist, "evaluate", interrupt)
        patch.setattr(moving_mnist.training, "train_networks", functools.partial(train_networks, callbacks=callbacks))
        run(out, *arguments)


def test_paper_recipe():
    args = moving_mnist.parse(["--recipe", "paper"])
    assert (args.size, args.width, args.input_frames, args.output_frames) == (64, 1.0, 10, 10)
    assert (args.iterations, args.batch_size, args.learning_rate) == (20_000, 16, 1e-3)
    assert (args.schedule, args.halve_every, args.baseline_learning_rate) == ("paper", 20 * 200, 1e-4)
    assert args.curriculum == 0 and args.clip_norm is None
    assert moving_mnist.curriculum(args, 200) == ([(0, {"steps": 10})], {10: 10})
    assert moving_mnist.parse(["--recipe", "paper", "--batch-size", "4"]).batch_size == 4


@pytest.mark.parametrize("recipe, network", [("better", "dfn_moving_mnist"), ("blended", "dfn_moving_mnist_blended")])
def test_our_recipes_have_the_budget_of_the_paper(recipe, network):
    args, paper = (moving_mnist.parse(["--recipe", name]) for name in (recipe, "paper"))
    for name in ("size", "width", "input_frames", "output_frames", "iterations", "batch_size"):
        assert getattr(args, name) == getattr(paper, name)
    assert moving_mnist.NETWORKS[args.network].__name__ == network


@pytest.mark.parametrize("size, expected", [(64, 9), (32, 5), (16, 3)])
def test_filters_contain_the_motion_of_digits(size, expected):
    assert moving_mnist.kernel_size(size) == expected
    radius = (expected - 1) / 2
    assert radius - 1 < 3.6 * size / 64 <= radius


def test_curriculum():
    args = moving_mnist.parse([*TEN, "--iterations", "1000", "--curriculum", "0.6", "--stages", "3:1", "4:2", "10:5"])
    plan, inputs = moving_mnist.curriculum(args, 50)
    assert plan == [(0, {"steps": 1}), (200, {"steps": 2}), (400, {"steps": 5}), (600, {"steps": 10})]
    assert inputs == {1: 3, 2: 4, 5: 10, 10: 10}
    plan, _ = moving_mnist.curriculum(args, 150)
    assert [first % 150 for first, _ in plan] == [0] * 4  # stages start with an epoch
    plan, _ = moving_mnist.curriculum(args, 1000)
    assert plan == [(0, {"steps": 10})]  # one epoch only: the last stage must not be left out
    args.curriculum = 0.0
    assert moving_mnist.curriculum(args, 50)[0] == [(0, {"steps": 10})]
    assert moving_mnist.parse(["--output-frames", "4", "--stages", "3:1", "4:2", "5:4"]).stages == [(3, 1), (4, 2)]


def test_errors_without_learning():
    """Compares with NumPy in float64."""
    args = moving_mnist.parse(["--size", "16", "--input-frames", "3", "--output-frames", "4"])
    batches = sequences.GeneratedSequences(args, sequences.shrink(DIGITS, 16), 60)
    figures = moving_mnist.errors({}, batches)
    inputs, targets = (np.concatenate(parts).astype(np.float64) for parts in zip(*batches))
    epsilon = np.finfo(np.float32).eps

    def error(predictions):
        predictions = np.clip(predictions, epsilon, 1 - epsilon)
        return 4096 * -np.mean(targets * np.log(predictions) + (1 - targets) * np.log1p(-predictions))

    expected = {
        "mean image": error(targets.mean(axis=(0, 1), keepdims=True)),
        "last frame": error(inputs[:, -1:]),
        "perfect": error(targets),
    }
    assert {name: figure["mean"] for name, figure in figures.items()} == pytest.approx(expected, rel=1e-4)
    assert figures["perfect"]["images"] == 240 and len(figures["last frame"]["per_frame"]) == 4


def test_stored_file_of_the_data_folder(real_data):
    path = real_data(sequences.FILE)
    args = moving_mnist.parse([*TEN, "--size", "64"])
    figures = moving_mnist.errors({}, sequences.StoredSequences(args, path))
    assert figures["perfect"]["mean"] == pytest.approx(87.2, abs=0.1)
    assert figures["last frame"]["mean"] == pytest.approx(3353, abs=1)
    assert figures["mean image"]["mean"] == pytest.approx(687.3, abs=0.1)


@pytest.mark.slow
def test_run_with_curriculum_and_resumption(tmp_path, digits, monkeypatch):
    arguments = ["--iterations", "6", "--curriculum", "0.6", "--stages", "2:1", "--clip-norm", "1"]
    asked = []
    make = data.moving_digits

    def watch(*arguments, **named):
        asked.append((arguments[2:4], named["frames"]))
        return make(*arguments, **named)

    monkeypatch.setattr(data, "moving_digits", watch)
    monkeypatch.setattr(moving_mnist, "draw", lambda *_: [])  # the smoke run covers it
    whole = run(tmp_path / "whole", *arguments)
    training = [call for call in asked if len(call[0]) == 2]
    assert training == [((4, 0), 3), ((6, 4), 5)]  # (end, start), frames
    assert list(whole["training"]) == ["dfn"] and whole["test_frames"] == [3, 2] and whole["digits"] == "rendered"
    assert whole["training"]["dfn"]["iterations"] == 6
    assert [entry["step"] for entry in whole["training"]["dfn"]["history"]] == [2, 4, 6]
    assert whole["test"]["generated"]["dfn"]["images"] == 4 * 2
    assert whole["out_of_domain"]["3"]["dfn"]["mean"] > 0

    network = keras.models.load_model(tmp_path / "whole" / "dfn.keras")
    assert isinstance(network, models.FramePredictor) and network.output_frames == 2
    generated = sequences.GeneratedSequences(moving_mnist.parse(TINY), sequences.shrink(DIGITS[20:], 16), 4)
    error = moving_mnist.errors({"dfn": network.predict_on_batch}, generated)["dfn"]["mean"]
    assert whole["test"]["generated"]["dfn"]["mean"] == pytest.approx(error, rel=1e-5)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    only_train(monkeypatch, tmp_path / "parts", *arguments, callbacks=[Stop()])
    only_train(monkeypatch, tmp_path / "parts", *arguments, "--resume")
    (arrays, notes), (expected, _) = (checkpoint.load(tmp_path / run / "dfn.checkpoint") for run in ("parts", "whole"))
    assert notes["position"] == 6
    assert all(value.tobytes() == other.tobytes() for value, other in zip(arrays, expected, strict=True))


@pytest.mark.slow
def test_other_frames_to_test_on(tmp_path, digits, monkeypatch):
    only_train(monkeypatch, tmp_path, "--iterations", "2", "--network", "blended")
    trained = checkpoint.read_settings(tmp_path / "settings.json")
    tested = run(tmp_path, "--iterations", "2", "--network", "blended", "--resume", "--test-frames", "2:4")
    assert tested["settings"]["network"] == "blended"
    assert tested["test_frames"] == [2, 4] and tested["settings"] == trained
    assert tested["training"]["dfn"]["iterations"] == 2
    figures = tested["test"]["generated"]["dfn"]
    assert figures["images"] == 4 * 4 and len(figures["per_frame"]) == 4
    assert len(tested["out_of_domain"]["1"]["dfn"]["per_frame"]) == 4

    network = keras.models.load_model(tmp_path / "dfn.keras")
    args = moving_mnist.parse([*TINY, "--test-frames", "2:4"])
    inputs, targets = next(iter(sequences.GeneratedSequences(args, sequences.shrink(DIGITS[20:], 16), 4)))
    expected = 4096 * np.mean(moving_mnist.losses.clipped_bce(targets, network(inputs, steps=4)))
    assert figures["mean"] == pytest.approx(expected, rel=1e-5)


def test_resume_needs_the_same_digits(tmp_path, digits, monkeypatch, no_training):
    no_training(run, tmp_path)
    no_training(run, tmp_path, "--resume", "--digits", "mnist")  # the same digits by another option
    replace_digits(monkeypatch, {"train": DIGITS[10:], "test": DIGITS[20:]})
    message = r"Expected the same training data: \{'digits': '20 x 28 x 28, uint8, CRC-32 .{8}'\}, as in "
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "--resume")


def test_missing_packages_are_reported_before_the_training(tmp_path, monkeypatch, digits):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(SystemExit, match="Export to onnx needs tf2onnx"):
        moving_mnist.main([*TINY, "--export", "onnx", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "48"], "--size: invalid choice: 48"),
        (["--recipe", "mine"], "--recipe: invalid choice: 'mine'"),
        (["--width", "-1"], "--width: expected a number above zero, received '-1'"),
        (["--curriculum", "2"], "--curriculum: expected a number from 0 to 1, received '2'"),
        (["--stages", "3"], "--stages: expected numbers of frames as INPUT:OUTPUT, received '3'"),
        (["--stages", "3:0"], "--stages: expected numbers of frames as INPUT:OUTPUT, received '3:0'"),
        (["--stages", "3:2", "3:1"], "--stages: expected the numbers of predicted frames to grow, received [2, 1]"),
        (["--test-frames", "10"], "--test-frames: expected numbers of frames as INPUT:OUTPUT, received '10'"),
        (["--baseline-bias", "nan"], "--baseline-bias: expected a finite number, received 'nan'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        moving_mnist.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_data_folder(tmp_path):
    with pytest.raises(SystemExit, match="Expected `data_dir` to be an existing folder"):
        moving_mnist.main(["--smoke", "--data-dir", str(tmp_path / "none"), "--out", str(tmp_path)])


@pytest.mark.slow
def test_smoke_run(python, tmp_path):
    (tmp_path / "mnist").mkdir()
    labels = np.arange(30, dtype=np.uint8) % 10
    arrays = dict(x_train=DIGITS[:20], y_train=labels[:20], x_test=DIGITS[20:], y_test=labels[20:])
    np.savez(tmp_path / "mnist" / "mnist.npz", **arrays)
    arguments = ["--smoke", "--baseline", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    done = python("-m", "examples.experiments.dfn.moving_mnist", *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    for text in ("perfect", "baseline: 12 iterations", "predictions.gif, results.json, dfn.keras, baseline.keras"):
        assert text in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["command"].startswith("python -m examples.experiments.dfn.moving_mnist --smoke")
    for file in ("predictions.png", "out_of_domain.png", "flow.png", "filters.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "predictions.gif").read_bytes().startswith(b"GIF8")
    assert 0 < results["end_point_error"]["dfn"] < 2 and "end-point error in pixels" in done.stdout
    for name in ("dfn", "baseline"):
        history = results["training"][name]["history"]
        assert [entry["step"] for entry in history] == [4, 8, 12]
        assert np.all(np.isfinite([entry["loss"] for entry in history]))
        for errors in (results["test"]["generated"], results["out_of_domain"]["3"]):
            assert np.all(np.isfinite(errors[name]["per_frame"])) and len(errors[name]["per_frame"]) == 3
