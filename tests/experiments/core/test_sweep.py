# SPDX-License-Identifier: Apache-2.0
"""Sweeps: names and locks of runs, processes that share them, descriptions of data."""

import json
import os
import pathlib
import subprocess
import types

import filelock
import numpy as np
import pytest

from examples.experiments.core import checkpoint, divergence, files, sweep


def options_of(out, **values):
    return types.SimpleNamespace(**{"out": out, "only": ["a", "b"], "seeds": [0], "processes": 2, **values})


def write_module(folder, monkeypatch, text):
    """Writes a module that the processes of a sweep run instead of an experiment, and returns its name."""
    (folder / "module_of_the_test.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "module_of_the_test"


# The first process finishes the runs, and the second process fails.
FINISH = """
import os, pathlib, sys
assert sys.argv[1:] == ["--seeds", "0", "--processes", "1"] and os.environ["TF_NUM_INTRAOP_THREADS"]
folder = pathlib.Path(__file__).parent
for name in ("a_seed0", "b_seed0"):
    try:
        with open(folder / "out" / "runs" / f"{name}.json", "x") as file:
            file.write((folder / "description").read_text())
    except FileExistsError:
        sys.exit("too late")
"""


def test_processes_share_a_sweep(tmp_path, capfd, monkeypatch):
    args, module = options_of(tmp_path / "out"), write_module(tmp_path, monkeypatch, FINISH)
    (args.out / "runs").mkdir(parents=True)
    files.write_record(tmp_path / "description", {})
    files.write_record(sweep.run_path(args, "a_seed0"), {})
    assert sweep.start_processes(args, module, ["--seeds", "0"]) == 1
    out, error = capfd.readouterr()
    assert "is finished" not in out and error.count("too late") == 2
    sweep.run_path(args, "a_seed0").unlink()
    assert sweep.start_processes(args, module, ["--seeds", "0"]) == 1
    assert "b_seed0 is finished: 2 of 2 runs" in capfd.readouterr().out


# Ends its work when the test writes to the pipe.
WORK = """
import pathlib
folder = pathlib.Path(__file__).parent
(folder / "pipe").read_text()
(folder / "report").touch()
"""


def test_interrupted_processes_end_their_work(tmp_path, monkeypatch):
    """The process ends its work only while `start_processes` waits for it."""
    os.mkfifo(tmp_path / "pipe")
    module = write_module(tmp_path, monkeypatch, WORK)
    wait = subprocess.Popen.wait

    def let_go_and_wait(process, timeout=None):
        if timeout == sweep.PATIENCE:
            (tmp_path / "pipe").write_text("")
            return wait(process)  # without a timeout, since machines differ
        return wait(process, timeout)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", let_go_and_wait)
    monkeypatch.setattr(sweep, "announce", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep.start_processes(options_of(tmp_path, processes=1), module, [])
    assert (tmp_path / "report").exists()


@pytest.mark.parametrize("content", ["", '{"a":', "[]"])
def test_damaged_description_is_an_error_before_the_training(tmp_path, content):
    args = options_of(tmp_path)
    (tmp_path / "runs").mkdir()
    sweep.run_path(args, "b_seed0").write_text(content)
    message = r"Expected .*b_seed0\.json to hold the description of a run, as JSON\. Received: .*Delete"
    with pytest.raises(checkpoint.SetupError, match=message):
        sweep.main(args, [], "module", None, None, None)
    with pytest.raises(SystemExit, match=message):
        sweep.run_script(lambda: sweep.main(args, [], "module", None, None, None))


@pytest.mark.parametrize("processes", [1, 2])
def test_out_that_cannot_be_written(processes):
    for out in (pathlib.Path("/proc/x"), pathlib.Path(__file__) / "x"):
        with pytest.raises(SystemExit, match=rf"--out: expected a folder that can be written\. Received: {out} \(.+\)"):
            sweep.main(options_of(out, processes=processes), [], "module", None, None, None)


def test_one_diverged_run_does_not_lose_the_others(tmp_path, capsys):
    images, trained = (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.uint8)), []

    def load(args):
        args.source = "generated"
        return images, images

    def train(experiment, variant, seed, train_data, test_data):
        trained.append(variant)
        if variant == "a" and diverges:
            raise divergence.DivergedError("a_seed0 diverged: the loss is not finite at step 7 of 9.", 7)
        return {"variant": variant}

    def report(runs, test_data):
        names = ", ".join(run["variant"] for run in runs)
        return {"variants": names}, f"Table of {names}.\n", {}

    def run():
        trained.clear()
        args = options_of(tmp_path, processes=1, batch_size=4, seed=0, resume=True, export=[], source=None)
        status = sweep.main(args, [], "module", load, train, report)
        return status, json.loads((tmp_path / "results.json").read_text()), (tmp_path / "tables.md").read_text()

    diverges = True
    for expected in (["a", "b"], []):  # the same command neither repeats nor forgets a diverged run
        status, results, tables = run()
        assert status == 1 and trained == expected
        assert results["variants"] == "b" and results["diverged"] == {"a_seed0": 7} and results["missing"] == []
        assert "Table of b." in tables and "| a_seed0 | diverged at step 7 |" in tables
        assert "Traceback" not in capsys.readouterr().err
    diverges = False
    sweep.run_path(types.SimpleNamespace(out=tmp_path), "a_seed0", sweep.DIVERGED).unlink()
    status, results, tables = run()
    assert status == 0 and trained == ["a"] and results["diverged"] == {} and "diverged" not in tables
    assert results["variants"] == "a, b"


def test_runs_are_ordered_by_seed():
    args = options_of(pathlib.Path("x"), only=["b", "a"], seeds=[2, 0])
    assert list(sweep.runs_of(args)) == ["b_seed2", "a_seed2", "b_seed0", "a_seed0"]


def test_data_are_described():
    described = {"train_images": "9 x 32 x 32 x 3, uint8, CRC-32 1", "test_images": "4 x 32 x 32 x 3, uint8, CRC-32 2"}
    line = sweep.describe_data("cifar10", described)
    assert line == "Data: cifar10; trained on 9 images of 32 x 32 x 3, tested on 4 images of 32 x 32 x 3."
    twice = {"train_images": "2 x 9000 x 64 x 64 x 3, uint8, CRC-32 1", "test_images": "2 x 9 x 64 x 64 x 3, uint8"}
    assert "trained on 9,000 images of 64 x 64 x 3, tested on 9 images" in sweep.describe_data("mtfl", twice)
    assert "synthetic" in sweep.describe_data("generated", described)


def test_locks_are_released(tmp_path, monkeypatch, capsys):
    locks, make = [], filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", lambda path: locks.append(make(path)) or locks[-1])
    args = options_of(tmp_path)
    (tmp_path / "runs").mkdir()
    with sweep.locked_run(args, "a_seed0") as first:
        assert first and locks[0].is_locked
        with sweep.locked_run(args, "a_seed0") as second:
            assert not second
    assert [lock.is_locked for lock in locks] == [False, False]
    with pytest.raises(KeyboardInterrupt), sweep.locked_run(args, "a_seed0"):
        raise KeyboardInterrupt
    assert not locks[2].is_locked
    assert capsys.readouterr().out == "a_seed0: locked by another process, skipped.\n"


def test_report_of_a_module():
    module = types.SimpleNamespace(
        summarize=lambda runs: {"of": runs},
        check_claims=lambda summary: [summary["of"]],
        markdown=lambda summary, claims: f"{summary} {claims}",
        figure=lambda summary: summary["of"],
    )
    assert sweep.report_accuracies(module, "runs", test_data="images") == (
        {"variants": {"of": "runs"}, "claims": ["runs"]},
        "{'of': 'runs'} ['runs']",
        {"accuracy.png": "runs"},
    )
