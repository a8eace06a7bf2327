# SPDX-License-Identifier: Apache-2.0
"""Tests that the runners of `examples/deploy` agree with Keras.

Here the runners use the interpreter of the tests instead of environments of their own.
"""

import json
import shutil
import sys
import types

import numpy as np
import pytest

from examples.deploy import check, run


@pytest.fixture(scope="module")
def deployed(native_library, ort_library, tmp_path_factory):
    """The output folder of one run of all runners except the CUDA ones, and its exit status."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("ai_edge_litert")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    out = tmp_path_factory.mktemp("deploy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "environment", lambda folder, packages: sys.executable)
        patch.delenv("KERAS_DYNFILTER_DATA", raising=False)
        arguments = ["--out", str(out), "--rows", "16", "--calls", "2", "--width", "0.1"]
        return out, run.main(arguments)


def run_program(folder, threads=1):
    """Runs the C++ program on the files of a folder; returns what it prints."""
    files = [folder / "model_native.onnx", folder / "inputs.npy", folder / "expected.npy"]
    return run.run(folder / "onnx_runner", *files, "output_0", threads, statuses=(0, 1))


@pytest.fixture
def copied(deployed, tmp_path):
    """A folder with everything that the C++ program needs except the expected outputs."""
    for name in ("model_native.onnx", "inputs.npy", "onnx_runner", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(deployed[0] / name)
    return tmp_path


@pytest.mark.slow
def test_runners_compute_what_keras_computes(deployed):
    out, status = deployed
    content = json.loads((out / "results.json").read_text())
    assert status == 0 and content["sequence"] == "a generated video" and content["weights"] == "untrained"
    rows = {row["name"]: row for row in content["rows"]}
    assert len(rows) == len([row for row in run.ROWS if row.environment != "cuda"]) == 7
    assert all(row["passed"] and 0 <= row["max_abs"] < 1e-5 and row["ms"] > 0 for row in rows.values())
    assert rows["C++, native ops, op library"]["runtime"].endswith("C++")
    assert rows["Python, standard ops"]["importable"] == list(check.ABSENT)  # the test interpreter has them all


@pytest.mark.slow
def test_program_finds_a_difference(deployed, copied):
    expected = np.load(deployed[0] / "expected.npy")
    for change, error in ((0.5, 0.5), (np.nan, np.inf)):
        changed = expected.copy()
        changed[1, 0, 0, 0] += change
        np.save(copied / "expected.npy", changed)
        printed = json.loads(run_program(copied))
        assert printed["passed"] is False and printed["max_abs"] == pytest.approx(error, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, message",
    [
        (b"not a file of NumPy", "not a .npy file"),
        (np.zeros((2, 3), "float64"), "expected float32 in row-major order"),
        (np.zeros((3, 2), "float32"), "as many results as inputs"),
        (np.zeros((2, 3), "float32"), "have different sizes"),
    ],
)
def test_program_refuses_files(content, message, copied):
    if isinstance(content, bytes):
        (copied / "expected.npy").write_bytes(content)
    else:
        np.save(copied / "expected.npy", content)
    with pytest.raises(RuntimeError, match=message):
        run_program(copied)


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["two", "2x", "0", "", "99999999999"])
def test_program_refuses_threads(threads, deployed):
    message = f"expected THREADS to be an integer above zero, received '{threads}'"
    with pytest.raises(RuntimeError, match=message):
        run_program(deployed[0], threads)


def test_measure():
    inputs, expected = np.arange(3.0)[:, None], np.array([[0.0], [2.0], [4.5]])
    assert check.measure(lambda array: 2 * array, inputs, expected)[0] == 0.5
    assert np.isnan(check.measure(lambda array: array * np.nan, inputs, expected)[0])
    with pytest.raises(ValueError, match="Expected an output"):
        check.measure(lambda array: array[0], inputs, expected)
    with pytest.raises(ValueError, match="as many results"):
        check.measure(lambda array: array, inputs[:2], expected)


def test_table_shows_failures():
    row = {"name": "a", "runtime": "r", "megabytes": 1.0, "ms": 2.0, "max_abs": 0.1, "passed": True, "importable": []}
    rows = [row, {**row, "passed": False, "importable": ["keras"]}, {"name": "b", "problem": "it broke"}]
    _, _, good, bad, broken = run.table(rows, 1.0).splitlines()
    assert good.endswith("1.0e-01") and bad.endswith("DIFFERS FROM KERAS  (keras could be imported)")
    assert broken.split() == ["b", "it", "broke"]


def test_environment_is_made_once(monkeypatch, tmp_path):
    commands = []

    def record(*command, **_):
        commands.append(command)
        (tmp_path / "env").mkdir(exist_ok=True)

    monkeypatch.setattr(run, "run", record)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    assert run.environment(tmp_path / "env", ["numpy"]) == tmp_path / "env" / "bin" / "python"
    assert len(commands) == 2 and commands[1][-1] == "numpy"
    run.environment(tmp_path / "env", ["numpy"])
    assert len(commands) == 2
    run.environment(tmp_path / "env", ["numpy", "onnxruntime"])
    assert len(commands) == 4


def test_commands_do_not_see_python_variables(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert run.run(sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))").strip() == "None"
    with pytest.raises(RuntimeError, match="failed: ValueError: why"):
        run.run(sys.executable, "-c", "raise ValueError('why')")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--calls", "0"], "Expected --calls to be above zero. Received: 0"),
        (["--threads", "0"], "Expected --threads to be above zero. Received: 0"),
        (["--width", "0"], "Expected --width to be above zero. Received: 0.0"),
        (["--width", "nan"], "Expected --width to be above zero. Received: nan"),
        (["--rows", "20"], "Expected --rows to be divisible by 8 and at least 16. Received: 20"),
        (["--weights", "no.weights.h5"], "Expected --weights to be a file. Received: no.weights.h5"),
        (["--only", "onxn"], "argument --only: invalid choice: 'onxn'"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run.parse(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_problems_are_reported_in_one_line(monkeypatch, tmp_path):
    start = ["--out", str(tmp_path / "out"), "--rows", "16", "--calls", "2", "--width", "0.1"]
    (tmp_path / "other.weights.h5").write_text("no weights")
    saved_model = [*start, "--only", "tensorflow"]
    with pytest.raises(SystemExit, match=r"Expected --weights to be weights of dfn_highway of --width 0\.1 .*: Unable"):
        run.main([*saved_model, "--weights", str(tmp_path / "other.weights.h5")])
    with pytest.raises(SystemExit, match="Expected `data_dir` to be an existing folder"):
        run.main([*saved_model, "--data-dir", str(tmp_path / "none")])
    monkeypatch.setattr(run.data, "find_data", lambda *_: "clip")
    monkeypatch.setattr(run.data, "load_video", lambda path, size, limit: np.zeros((5, size, 16)))
    with pytest.raises(SystemExit, match="Expected --calls to be at most 3, because clip has 5 frames"):
        run.main([*saved_model, "--calls", "4"])
    monkeypatch.setattr(run, "deploy", lambda *_: run.run("no_such_compiler"))
    with pytest.raises(SystemExit, match="no_such_compiler cannot be run: No such file"):
        run.main(saved_model)
    monkeypatch.setattr(run.formats, "choose", lambda *_: None)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"Expected g\+\+ for the C\+\+ runner"):
        run.main([*start, "--only", "onnx"])


@pytest.mark.parametrize("printed", ["Aborted", "", "[1]", "null", '{"ms": 1.0}'])
def test_runner_that_prints_something_else(printed, monkeypatch, tmp_path):
    row = next(row for row in run.ROWS if row.runner == "litert_runner.py")
    args = types.SimpleNamespace(out=tmp_path, threads=1)
    monkeypatch.setattr(run, "run", lambda *_, **__: f"a line\n{printed}\n")
    with pytest.raises(RuntimeError, match=r"Expected litert_runner\.py to end with a line of JSON\. Received: "):
        run.run_row(row, args, "output_0", {"litert": "python"}, None, None)


def test_frames(monkeypatch):
    monkeypatch.setattr(run.data, "find_data", lambda *_: "clip")
    monkeypatch.setattr(run.data, "load_video", lambda path, size, limit: np.zeros((min(limit, 5), size, 61)))
    assert run.frames(4, 32)[0].shape == (4, 32, 56)
    with pytest.raises(ValueError, match="Expected --calls to be at most 3"):
        run.frames(6, 32)
