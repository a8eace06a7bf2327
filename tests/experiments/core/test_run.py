# SPDX-License-Identifier: Apache-2.0
"""Steps of an experiment: settings and data of resumed runs, results and exports, exit status."""

import json

import numpy as np
import pytest

from examples.experiments.core import exports, run, training
from keras_dynfilter.export import formats
from tests.support import toy_experiment
from tests.support.toy_options import parsed


def test_resume_needs_the_same_settings(tmp_path):
    def begin(*arguments):
        return run.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments))

    assert begin().settings["iterations"] == 100
    begin("--resume", "--time-limit", "3", "--baseline")
    with pytest.raises(SystemExit, match=r"Expected --batch-size 8, as in .*settings\.json\. Received: 4"):
        begin("--resume", "--batch-size", "4")
    with pytest.raises(SystemExit, match=r"Expected --steps-per-execution 1, as in .* Received: 2"):
        begin("--resume", "--steps-per-execution", "2")  # the time limit may have stopped the run at an odd step


def test_errors_name_switches_as_they_are_typed(tmp_path):
    for earlier, later, message in (
        ([], ["--pyramid"], "Expected no --pyramid, as in .* Received: --pyramid"),
        (["--pyramid"], [], "Expected --pyramid, as in .* Received: no --pyramid"),
        (["--clip-norm", "2"], [], r"Expected --clip-norm 2\.0, as in .* Received: no --clip-norm"),
        (["--warmup", "0"], ["--warmup", "1"], r"Expected --warmup 0\.0, as in .* Received: 1\.0"),
    ):
        begin = lambda *more: run.begin(parsed("--no-deterministic", "--out", str(tmp_path), *more))  # noqa: E731
        begin(*earlier)
        with pytest.raises(SystemExit, match=message):
            begin("--resume", *later)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_settings_are_an_error(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(SystemExit, match=r"Expected .*settings\.json to hold the settings of a run, as JSON"):
        run.begin(parsed("--no-deterministic", "--out", str(tmp_path), "--resume"))


def test_resume_needs_the_same_data(tmp_path):
    def begin(data, *arguments):
        return run.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments), data=data)

    clips = {name: np.full([2, 3], value, np.float32) for name, value in {"a": 1, "b": 2}.items()}
    original = run.fingerprint(clips)
    assert original["a"].startswith("2 x 3, float32, CRC-32 ") and original["a"] != original["b"]
    flipped = {name: clip[::-1, ::-1] for name, clip in clips.items()}
    assert original == run.fingerprint(flipped)  # values count, not the memory layout
    clips["b"][1, 2] = 3
    changed = run.fingerprint(clips)
    assert begin(original).settings["data"] == original
    begin(original, "--resume")
    for other, expected, received in (
        (changed, {"b": original["b"]}, {"b": changed["b"]}),
        ({"a": original["a"]}, {"b": original["b"]}, {}),
        (None, original, None),
        ("synthetic", original, "synthetic"),
    ):
        with pytest.raises(SystemExit) as stop:
            begin(other, "--resume")
        message = f"Expected the same training data: {expected}, as in {tmp_path / 'settings.json'}. "
        assert str(stop.value) == f"{message}Received: {received}. Another --out begins a new run"
    with pytest.raises(SystemExit, match=r"Expected --warmup 0\.02, "):  # an option that may explain other data
        begin(changed, "--resume", "--warmup", "0.5")


def test_end_of_a_script(tmp_path, monkeypatch, capsys):
    """Every network is exported in every format. The results are written before, in case an export fails."""
    kinds = {"onnx": ".onnx", "saved_model": "_saved_model", "litert": ".tflite"}
    assert set(kinds) == set(formats.FORMATS)
    experiment = run.begin(parsed("--no-deterministic", "--export", *kinds, "--out", str(tmp_path)))
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

    monkeypatch.setattr(exports.export, "export", export)
    run.conclude(experiment, trained, {"test": {"error": 1.5}}, ["figure.png"])
    assert exported == [
        (trained[name].network, str(tmp_path / f"{name}{suffix}"), kind)
        for name in ("toy", "baseline")
        for kind, suffix in kinds.items()
    ]
    assert results()["exports"]["baseline"] == {kind: {"number": 4 + place} for place, kind in enumerate(kinds)}
    assert results()["training"]["toy"]["processor_seconds"] == 150.0
    assert results()["training"]["toy"]["iterations"] == 4 and results()["settings"] == experiment.settings
    shown = capsys.readouterr().out
    for text in (
        "toy: 4 iterations in 1.5 minutes, 2.5 minutes of processor time",
        f"Files in {tmp_path}: figure.png, results.json, toy.keras, baseline.keras",
        f"{tmp_path / 'toy_saved_model'} (saved_model, validated)",
        "the same command with --resume --baseline",
    ):
        assert text in shown


def test_unfinished_trainings_are_not_tested(tmp_path, capsys):
    def finished(steps, *arguments):
        experiment = run.begin(parsed("--no-deterministic", "--out", str(tmp_path), *arguments))
        return run.finished(experiment, {"toy": training.Trained(None, steps, 90.0, [], 150.0)})

    assert finished(100) and capsys.readouterr().out == ""
    assert not finished(99)
    shown = capsys.readouterr().out
    assert "toy: 99 iterations in 1.5 minutes" in shown and "the same command with --resume continues" in shown
    assert not finished(99, "--resume") and "the same command continues" in capsys.readouterr().out


def test_missing_data_and_packages_end_the_script_with_one_line():
    for error in (ImportError, OSError, ValueError):
        with pytest.raises(SystemExit, match="no such thing"), run.preparing(parsed()):
            raise error("no such thing")
    with pytest.raises(KeyError), run.preparing(parsed()):
        raise KeyError("a mistake in the script")


def test_status_of_a_script():
    def interrupted():
        raise KeyboardInterrupt

    for main, code in ((lambda: 0, 0), (lambda: 1, 1)):
        with pytest.raises(SystemExit) as stop:
            run.run_script(main)
        assert stop.value.code == code
    with pytest.raises(SystemExit, match="The same command with --resume continues"):
        run.run_script(interrupted)
