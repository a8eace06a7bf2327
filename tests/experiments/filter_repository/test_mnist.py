# SPDX-License-Identifier: Apache-2.0
"""The MNIST grid of the filter repository: data, cells, tables, claims; a small run that is continued."""

import json
import pathlib

import numpy as np
import pytest

from examples.experiments.core import statistics, sweep
from examples.experiments.filter_repository import mnist, mnist_tables, runs


@pytest.fixture
def digits(tmp_path):
    """A folder with 40 and 20 digits in the place of MNIST, each of which is told by its brightness."""
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        labels = (np.arange(count) % 10).astype("uint8")
        arrays |= {f"x_{split}": np.tile(25 * labels[:, None, None], (1, 28, 28)), f"y_{split}": labels}
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    np.savez(tmp_path / "data" / "mnist" / "mnist.npz", **arrays)
    return tmp_path / "data"


def test_others_are_others():
    images = np.arange(100)[:, None]
    moved = runs.others(images)
    assert sorted(moved.ravel()) == list(range(100)) and np.all(moved != images)
    assert not np.all(np.abs(moved - images) == 1)


def test_cells_are_ordered_by_seed():
    args = mnist.parse(["--only", "n20", "baseline", "n20", "--seeds", "2", "0"])
    assert list(sweep.cells(args)) == ["n20_seed2", "baseline_seed2", "n20_seed0", "baseline_seed0"]


def test_the_rate_falls_to_zero(monkeypatch):
    class Run:
        args, settings = mnist.parse(["--epochs", "4", "--batch-size", "5", "--learning-rate", "0.2"]), {}

    class Trainer:
        def compile(self, optimizer, losses):
            self.optimizer, self.losses = optimizer, losses

    def train(name, build, compile_model, steps, total, epoch, **_):
        trainer = Trainer()
        compile_model(trainer)
        return trainer, total, epoch

    monkeypatch.setattr(runs.training, "train", train)
    trainer, total, epoch = runs.train_network(Run, "n5", None, True, "mse", None, 11, 0, None)
    assert (total, epoch) == (12, 3) and trainer.losses == {"classes": "mse", "reconstruction": "binary_crossentropy"}
    rates = []
    for step in (0, 6, 12):
        trainer.optimizer.iterations.assign(step)
        rates.append(float(trainer.optimizer.learning_rate))
    assert rates == pytest.approx([0.2, 0.1, 0.0], abs=1e-6)


def cell(variant, seed, *accuracies, swapped=30.0):
    history = [{"test_accuracy": value} for value in accuracies]
    swapped = None if variant == "baseline" else swapped
    figures = dict(parameters=7, history=history, swapped=swapped, training_seconds=60)
    return {"variant": variant, "seed": seed, **figures}


def test_tables_and_claims():
    def cell_of_20(variant, seed, first, last, **figures):
        return cell(variant, seed, first, *[90.0] * 18, last, **figures)

    cells = [
        cell_of_20("n20", 1, 97.2, 99.1, swapped=20.0),
        cell_of_20("n20", 0, 98.0, 99.3),
        cell_of_20("baseline", 0, 95.0, 98.0),
        cell_of_20("baseline", 1, 95.0, 98.1),
        cell_of_20("n5", 0, 95.0, 98.4),
        cell_of_20("n5", 1, 95.0, 98.6),
        cell_of_20("n10", 0, 95.0, 98.3),
    ]
    summary = mnist_tables.summarize(cells)
    assert list(summary) == ["baseline", "n5", "n10", "n20"]
    assert summary["n20"]["seeds"] == [0, 1] and summary["n20"]["last"]["runs"] == [99.3, 99.1]
    claims = mnist_tables.check_claims(summary)
    assert [(statistics.finding(each), each["verdict"]) for each in claims] == [
        ("99.20", "holds"),  # a number
        ("+1.15 ± 0.11", "holds"),
        ("+0.45 ± 0.11", "holds"),
        ("-0.20", "undecided"),  # one seed
        ("+0.90", "undecided"),
        ("97.60", "holds"),
        ("+2.60 ± 0.40", "holds"),  # ahead of the baseline from the first epoch
    ]
    text = mnist_tables.markdown(summary, claims)
    row = "| n_enc 20, s 5 | 7 | 2 | 97.60 ± 0.57 | 97.53 | 99.20 ± 0.14 | 99.10 | 25.00 ± 7.07 |"
    assert text.count(row) == 2  # it stands in both tables
    assert "| baseline | 7 | 2 | 95.00 ± 0.00 | 95.23 | 98.05 ± 0.07 | 98.25 |  |" in text
    assert "| baseline at least 0.5 points below | +1.15 ± 0.11 | holds |" in text
    assert mnist_tables.check_claims(mnist_tables.summarize(cells[2:4])) == []


def test_features_beside_base_filters():
    accuracies = {"n5": 98.4, "n10": 98.5, "n20": 99.1, "s2": 98.6, "s10": 98.9}
    cells = [cell(name, seed, *[90.0] * 19, last + seed / 50) for name, last in accuracies.items() for seed in (0, 1)]
    claims = mnist_tables.check_claims(mnist_tables.summarize(cells))
    found = [each for each in claims if each["claim"].startswith("n_enc matters more than s")]
    assert [statistics.finding(each) for each in found] == ["+0.10 ± 0.01", "+0.40 ± 0.02"]
    assert {each["verdict"] for each in found} == {"holds"}


@pytest.mark.parametrize("epochs", [2, 21])
def test_only_trainings_of_20_epochs_are_judged(epochs):
    pairs = [("n20", 98.0, 99.9), ("baseline", 95.0, 98.0)]
    cells = [
        cell(variant, seed, first, *[90.0] * (epochs - 2), last + seed / 50)
        for variant, first, last in pairs
        for seed in (0, 1)
    ]
    summary = mnist_tables.summarize(cells)
    claims = mnist_tables.check_claims(summary)
    assert [each["verdict"] for each in claims] == ["undecided"] * 4
    text = mnist_tables.markdown(summary, claims)
    assert f"at least 99.1 % after epoch 20 (of {epochs} epochs) | 99.91 | undecided |" in text
    assert f"| 99.91 ± 0.01 (epoch {epochs}) | 99.10 |" in text


def test_a_small_grid_is_trained_once(digits, tmp_path, monkeypatch, capsys):
    arguments = [
        "--only",
        "baseline",
        "n5",
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
    assert list(results["variants"]) == ["baseline", "n5"] and results["missing"] == []
    assert results["variants"]["n5"]["parameters"] == 4_316 + 10  # biases of the generated convolutions
    assert results["variants"]["baseline"]["swapped"] is None
    assert 0 <= results["variants"]["n5"]["swapped"]["mean"] <= 100
    cells = sweep.finished_cells(mnist.parse(arguments), ["n5_seed0"])
    assert [each["step"] for each in cells["n5_seed0"]["history"]] == [2, 4]
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 5_000
    assert "Table 2" in capsys.readouterr().out

    monkeypatch.setattr(runs.training, "train", None)  # nothing is trained twice
    assert mnist.main([*arguments, "--seeds", "0"]) == 0

    # What was trained before is exported when that is asked for, once in each format.
    exported = []

    class Report:
        def to_dict(self):
            return {"passed": True}

    def export(network, path, format):
        exported.append((pathlib.Path(path).name, format))
        assert network.count_params()
        return Report()

    monkeypatch.setattr(sweep.experiment.export, "export", export)
    for kinds in (["onnx"], ["onnx"], ["onnx", "saved_model"]):
        assert mnist.main([*arguments, "--export", *kinds]) == 0
    assert exported[:2] == [("baseline_seed0.onnx", "onnx"), ("n5_seed0.onnx", "onnx")]
    assert len(exported) == 2 + 4 and exported[-1] == ("n5_seed0_saved_model", "saved_model")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["exports"]["n5_seed0"] == {"onnx": {"passed": True}, "saved_model": {"passed": True}}
    with pytest.raises(SystemExit, match=r"Expected --learning-rate 0\.001, as in"):
        mnist.main([*arguments, "--learning-rate", "0.5"])
