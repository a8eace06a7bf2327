# SPDX-License-Identifier: Apache-2.0
"""The MNIST sweep of the filter repository: tables, claims, and a small sweep that is continued."""

import json
import pathlib

import numpy as np
import pytest

from examples.experiments.core import exports, markdown, sweep
from examples.experiments.filter_repository import mnist, mnist_tables, runs


@pytest.fixture
def digits(tmp_path):
    """Makes a folder with 40 and 20 images instead of MNIST. The brightness of an image encodes its label."""
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        labels = (np.arange(count) % 10).astype("uint8")
        arrays |= {f"x_{split}": np.tile(25 * labels[:, None, None], (1, 28, 28)), f"y_{split}": labels}
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    np.savez(tmp_path / "data" / "mnist" / "mnist.npz", **arrays)
    return tmp_path / "data"


def test_no_image_keeps_its_place():
    images = np.arange(100)[:, None]
    moved = runs.other_images(images)
    assert sorted(moved.ravel()) == list(range(100)) and np.all(moved != images)
    assert not np.all(np.abs(moved - images) == 1)


def test_variants_and_seeds_are_trained_once():
    args = mnist.parse(["--only", "encoder20", "baseline", "encoder20", "--seeds", "2", "0", "2"])
    assert (args.only, args.seeds) == (["encoder20", "baseline"], [2, 0])


def test_the_rate_falls_to_zero(monkeypatch):
    class Experiment:
        args, settings = mnist.parse(["--epochs", "4", "--batch-size", "5", "--learning-rate", "0.2"]), {}

    class Trainer:
        def compile(self, optimizer, losses):
            self.optimizer, self.losses = optimizer, losses

    def train(name, build, compile_model, steps, total, epoch, **_):
        trainer = Trainer()
        compile_model(trainer)
        return trainer, total, epoch

    monkeypatch.setattr(runs.training, "train", train)
    trainer, total, epoch = runs.train_network(Experiment, "encoder5", None, True, "mse", None, 11, 0, None)
    assert (total, epoch) == (12, 3) and trainer.losses == {"classes": "mse", "reconstruction": "binary_crossentropy"}
    rates = []
    for step in (0, 6, 12):
        trainer.optimizer.iterations.assign(step)
        rates.append(float(trainer.optimizer.learning_rate))
    assert rates == pytest.approx([0.2, 0.1, 0.0], abs=1e-6)


def run(variant, seed, *accuracies, swapped=30.0):
    history = [{"test_accuracy": value} for value in accuracies]
    swapped = None if variant == "baseline" else swapped
    figures = dict(parameters=7, history=history, swapped=swapped, training_seconds=60)
    return {"variant": variant, "seed": seed, **figures}


def test_tables_and_claims():
    def run_of_20(variant, seed, first, last, **figures):
        return run(variant, seed, first, *[90.0] * 18, last, **figures)

    finished = [
        run_of_20("encoder20", 1, 97.2, 99.1, swapped=20.0),
        run_of_20("encoder20", 0, 98.0, 99.3),
        run_of_20("encoder20", 2, 97.6, 99.2, swapped=25.0),
        *(run_of_20("baseline", seed, 95.0, last) for seed, last in enumerate([98.0, 98.1, 98.05])),
        *(run_of_20("encoder5", seed, 95.0, last) for seed, last in enumerate([98.4, 98.6, 98.5])),
        run_of_20("encoder10", 0, 95.0, 98.3),
    ]
    summary = mnist_tables.summarize(finished)
    assert list(summary) == ["baseline", "encoder5", "encoder10", "encoder20"]
    assert summary["encoder20"]["seeds"] == [0, 1, 2] and summary["encoder20"]["last"]["values"] == [99.3, 99.1, 99.2]
    claims = mnist_tables.check_claims(summary)
    assert [(markdown.finding(claim), claim["verdict"]) for claim in claims] == [
        ("99.20", "holds"),  # a number
        ("+1.15 ± 0.06", "holds"),
        ("+0.45 ± 0.06", "holds"),
        ("-0.20", "undecided"),  # one seed
        ("+0.90", "undecided"),
        ("97.60", "holds"),
        ("+2.60 ± 0.23", "holds"),
    ]
    text = mnist_tables.markdown(summary, claims)
    row = "| 20 features, 5 base filters | 7 | 3 | 97.60 ± 0.40 | 97.53 | 99.20 ± 0.10 | 99.10 | 25.00 ± 5.00 |"
    assert text.count(row) == 2  # in both tables
    assert "| baseline | 7 | 3 | 95.00 ± 0.00 | 95.23 | 98.05 ± 0.05 | 98.25 |  |" in text
    assert "| baseline at least 0.5 points below | +1.15 ± 0.06 | holds |" in text
    assert mnist_tables.check_claims(mnist_tables.summarize(finished[3:5])) == []


def test_encoder_channels_and_base_filters():
    accuracies = {"encoder5": 98.4, "encoder10": 98.5, "encoder20": 99.1, "base2": 98.6, "base10": 98.9}
    finished = [run(name, seed, *[90.0] * 19, last + seed / 50) for name, last in accuracies.items() for seed in (0, 1)]
    claims = mnist_tables.check_claims(mnist_tables.summarize(finished))
    features = [claim for claim in claims if claim["claim"].startswith("features matter more")]
    assert [markdown.finding(claim) for claim in features] == ["+0.10 ± 0.01", "+0.40 ± 0.02"]
    assert {claim["verdict"] for claim in features} == {"holds"}


@pytest.mark.parametrize("epochs", [2, 21])
def test_only_trainings_of_20_epochs_are_judged(epochs):
    pairs = [("encoder20", 98.0, 99.9), ("baseline", 95.0, 98.0)]
    finished = [
        run(variant, seed, first, *[90.0] * (epochs - 2), last + seed / 50)
        for variant, first, last in pairs
        for seed in (0, 1)
    ]
    summary = mnist_tables.summarize(finished)
    claims = mnist_tables.check_claims(summary)
    assert [claim["verdict"] for claim in claims] == ["undecided"] * 4
    text = mnist_tables.markdown(summary, claims)
    assert f"at least 99.1 % after epoch 20 (of {epochs} epochs) | 99.91 | undecided |" in text
    assert f"| 99.91 ± 0.01 (epoch {epochs}) | 99.10 |" in text


def test_a_small_sweep_is_trained_once(digits, tmp_path, monkeypatch, capsys):
    arguments = [
        "--only",
        "baseline",
        "encoder5",
        "--seeds",
        "0",
        "--epochs",
        "2",
        "--batch-size",
        "20",
        "--no-deterministic",
    ]
    arguments += ["--out", str(tmp_path / "out"), "--data-dir", str(digits)]
    assert mnist.main(arguments) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["variants"]) == ["baseline", "encoder5"] and results["missing"] == []
    assert results["variants"]["encoder5"]["parameters"] == 4_316 + 10  # biases of the generated convolutions
    assert results["variants"]["baseline"]["swapped"] is None
    assert 0 <= results["variants"]["encoder5"]["swapped"]["mean"] <= 100
    finished = sweep.finished_runs(mnist.parse(arguments), ["encoder5_seed0"])
    assert [epoch["step"] for epoch in finished["encoder5_seed0"]["history"]] == [2, 4]
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 5_000
    assert "Table 2" in capsys.readouterr().out

    monkeypatch.setattr(runs.training, "train", None)  # nothing is trained twice
    assert mnist.main([*arguments, "--seeds", "0"]) == 0

    # Trained networks are exported later if --export is given, once in each format.
    exported = []

    class Report:
        def to_dict(self):
            return {"passed": True}

    def export(network, path, format):
        exported.append((pathlib.Path(path).name, format))
        assert network.count_params()
        return Report()

    monkeypatch.setattr(exports.export, "export", export)
    for kinds in (["onnx"], ["onnx"], ["onnx", "saved_model"]):
        assert mnist.main([*arguments, "--export", *kinds]) == 0
    assert exported[:2] == [("baseline_seed0.onnx", "onnx"), ("encoder5_seed0.onnx", "onnx")]
    assert len(exported) == 2 + 4 and exported[-1] == ("encoder5_seed0_saved_model", "saved_model")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["exports"]["encoder5_seed0"] == {"onnx": {"passed": True}, "saved_model": {"passed": True}}
    with pytest.raises(SystemExit, match=r"Expected --learning-rate 0\.001, as in"):
        mnist.main([*arguments, "--learning-rate", "0.5"])


@pytest.mark.slow
def test_smoke_run_of_two_processes(python, tmp_path):
    arguments = ["--smoke", "--processes", "2", "--out", str(tmp_path)]
    done = python("-m", "examples.experiments.filter_repository.mnist", *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("baseline_seed0", "encoder5_seed0"):
        assert json.loads((tmp_path / "runs" / f"{name}.json").read_text())["iterations"] == 2 * 2
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["missing"] == [] and results["source"] == "rendered"
    assert "2 processes" in done.stdout and "Table 1" in done.stdout
