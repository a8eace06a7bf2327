# SPDX-License-Identifier: Apache-2.0
"""What the examples share: options and recipes, learning rates, settings of resumed runs, errors of predictions."""

import argparse
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import common, experiment, harness, training
from keras_dynfilter.export import formats
from tests.support import toy_experiment


def parser():
    made = argparse.ArgumentParser()
    made.add_argument("--recipe", choices=RECIPES, default="a")
    made.add_argument("--data-dir")
    made.add_argument("--pyramid", action="store_true")
    made.add_argument("--stages", nargs="+", default=[(4, 2), (5, 3)], help="of pairs")
    harness.add_options(made, "toy")
    harness.add_training_options(made)
    return made


RECIPES = {
    "a": {"iterations": 100, "batch_size": 8, "learning_rate": 0.1, "schedule": "cosine"},
    "b": {
        "iterations": 200,
        "batch_size": 8,
        "learning_rate": 0.2,
        "schedule": "paper",
        "halve_every": 50,
        "clip_norm": 2.0,
        "stages": [(3, 1)],
    },
}
RECIPES["c"] = {**RECIPES["a"], "clip_norm": 2.0}
SMOKE = {"iterations": 4, "checkpoint_every": 2}


def parsed(*arguments):
    return harness.parse(parser(), arguments, SMOKE, RECIPES)


def test_given_arguments_come_before_the_recipe_and_smoke_before_both():
    assert (parsed().iterations, parsed().halve_every, parsed().checkpoint_every) == (100, 4000, 200)
    assert (parsed("--recipe", "b").iterations, parsed("--recipe", "b").halve_every) == (200, 50)
    assert parsed("--recipe", "b", "--iterations", "7").iterations == 7
    smoke = parsed("--smoke", "--recipe", "b", "--learning-rate", "3")
    assert (smoke.iterations, smoke.checkpoint_every, smoke.learning_rate) == (4, 2, 3)


def test_help_shows_the_defaults_that_hold(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    assert not any(f"(default: {none})" in shown for none in (None, [], False))
    for text in (
        "--iterations N",
        "training steps (default: a/c=100, b=200)",
        "of all devices together (default: 8)",
        "of pairs (default: a/c=4:2 5:3, b=3:1)",
        "steps (default: a/c=4000, b=50)",
        "none in the paper (default: b/c=2.0)",
        "in which the rate rises (default: 0.02)",
        "of weights and data (default: 0)",
    ):
        assert text in shown


def test_script_without_recipes(capsys):
    made = argparse.ArgumentParser()
    made.add_argument("--epochs", type=common.positive_int, default=8, help="of the training")
    harness.add_options(made, "toy")
    assert harness.parse(made, ["--smoke"], {"epochs": 2}).epochs == 2
    with pytest.raises(SystemExit):
        harness.parse(made, ["--help"], {"epochs": 2})
    assert "--epochs N" in (shown := capsys.readouterr().out) and "of the training (default: 8)" in shown


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
        (["--data-dir", __file__], "--data-dir: expected a folder, received the file"),
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
    with pytest.raises(SystemExit, match=r"Expected --batch-size 8, as in .*settings\.json\. Received: 4"):
        begin("--resume", "--batch-size", "4")
    with pytest.raises(SystemExit, match=r"Expected --steps-per-execution 1, as in .* Received: 2"):
        begin("--resume", "--steps-per-execution", "2")  # the time limit may have ended it at an odd step


def test_switches_of_other_settings_are_named_as_they_are_typed(tmp_path):
    for earlier, later, message in (
        ([], ["--pyramid"], "Expected no --pyramid, as in .* Received: --pyramid"),
        (["--pyramid"], [], "Expected --pyramid, as in .* Received: no --pyramid"),
        (["--clip-norm", "2"], [], r"Expected --clip-norm 2\.0, as in .* Received: no --clip-norm"),
        (["--warmup", "0"], ["--warmup", "1"], r"Expected --warmup 0\.0, as in .* Received: 1\.0"),
    ):
        begin = lambda *more: harness.begin(parsed("--no-deterministic", "--out", str(tmp_path), *more))  # noqa: E731
        begin(*earlier)
        with pytest.raises(SystemExit, match=message):
            begin("--resume", *later)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_settings_are_an_error(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(SystemExit, match=r"Expected .*settings\.json to hold the settings of a run, as JSON"):
        harness.begin(parsed("--no-deterministic", "--out", str(tmp_path), "--resume"))


def test_resume_needs_the_same_data(tmp_path):
    def begin(data, *arguments):
        return harness.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments), data=data)

    clips = {name: np.full([2, 3], value, np.float32) for name, value in {"a": 1, "b": 2}.items()}
    found = common.fingerprint(clips)
    assert found["a"].startswith("2 x 3, float32, CRC-32 ") and found["a"] != found["b"]
    assert found == common.fingerprint({name: clip[::-1, ::-1] for name, clip in clips.items()})  # as it is read
    clips["b"][1, 2] = 3
    changed = common.fingerprint(clips)
    assert begin(found).settings["data"] == found
    begin(found, "--resume")
    for other, expected, received in (
        (changed, {"b": found["b"]}, {"b": changed["b"]}),
        ({"a": found["a"]}, {"b": found["b"]}, {}),
        (None, found, None),
        ("synthetic", found, "synthetic"),
    ):
        with pytest.raises(SystemExit) as stop:
            begin(other, "--resume")
        message = f"Expected the same training data: {expected}, as in {tmp_path / 'settings.json'}. "
        assert str(stop.value) == f"{message}Received: {received}. Another --out begins a new run"
    with pytest.raises(SystemExit, match=r"Expected --warmup 0\.02, "):  # the option that may be the reason
        begin(changed, "--resume", "--warmup", "0.5")


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


def test_end_of_a_script(tmp_path, monkeypatch, capsys):
    """Every network is exported in every format; if that fails, what was measured is not lost."""
    kinds = {"onnx": ".onnx", "saved_model": "_saved_model", "litert": ".tflite"}
    assert set(kinds) == set(formats.FORMATS)
    run = harness.begin(parsed("--no-deterministic", "--export", *kinds, "--out", str(tmp_path)))
    trained = {name: training.Trained(toy_experiment.build(), 4, 90.0, [], 150.0) for name in ("toy", "baseline")}
    exported = []

    class Report:
        def to_dict(self):
            return {"number": len(exported)}

    def export(model, path, format):
        assert results()["test"] == {"error": 1.5} and "exports" not in results()
        exported.append((model, path, format))
        return Report()

    def results():
        return json.loads((tmp_path / "results.json").read_text())

    monkeypatch.setattr(experiment.export, "export", export)
    experiment.conclude(run, trained, {"test": {"error": 1.5}}, ["figure.png"])
    assert exported == [
        (trained[name].network, str(tmp_path / f"{name}{suffix}"), kind)
        for name in ("toy", "baseline")
        for kind, suffix in kinds.items()
    ]
    assert results()["exports"]["baseline"] == {kind: {"number": 4 + place} for place, kind in enumerate(kinds)}
    assert results()["training"]["toy"]["processor_seconds"] == 150.0
    assert results()["training"]["toy"]["iterations"] == 4 and results()["settings"] == run.settings
    shown = capsys.readouterr().out
    for text in (
        "toy: 4 iterations in 1.5 minutes, 2.5 of processor time",
        f"Files in {tmp_path}: figure.png, results.json, toy.keras, baseline.keras",
        f"{tmp_path / 'toy_saved_model'} (saved_model, validated)",
        "the same command with --resume --baseline",
    ):
        assert text in shown


def test_unfinished_trainings_are_not_tested(tmp_path, capsys):
    def finished(steps, *arguments):
        run = harness.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments))
        return experiment.finished(run, {"toy": training.Trained(None, steps, 90.0, [], 150.0)})

    assert finished(100) and capsys.readouterr().out == ""
    assert not finished(99)
    shown = capsys.readouterr().out
    assert "toy: 99 iterations in 1.5 minutes" in shown and "the same command with --resume goes on" in shown
    assert not finished(99, "--resume") and "the same command goes on" in capsys.readouterr().out


def test_what_is_missing_is_said_in_a_line():
    for error in (ImportError, OSError, ValueError):
        with pytest.raises(SystemExit, match="no such thing"), experiment.preparing(parsed()):
            raise error("no such thing")
    with pytest.raises(KeyError), experiment.preparing(parsed()):
        raise KeyError("a mistake of ours")


def test_status_of_a_script():
    def interrupted():
        raise KeyboardInterrupt

    for main, code in ((lambda: 0, 0), (lambda: 1, 1)):
        with pytest.raises(SystemExit) as stop:
            experiment.run_script(main)
        assert stop.value.code == code
    with pytest.raises(SystemExit, match="The same command with --resume continues"):
        experiment.run_script(interrupted)


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
