# SPDX-License-Identifier: Apache-2.0
"""`python -m keras_dynfilter.info` and `python -m benchmarks`, as a user calls them."""

import json
import re

import pytest
import tensorflow as tf

from benchmarks import __main__ as benchmarks
from benchmarks import targets, timing
from benchmarks.ops import cases
from keras_dynfilter import info
from keras_dynfilter.ops.backends import library as library_module
from keras_dynfilter.ops.backends import scope


def test_info_reports_a_wrong_implementation(python):
    done = python("-m", "keras_dynfilter.info", KERAS_DYNFILTER_IMPLEMENTATION="nativ")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tensorflow  " in done.stdout
    assert "none: Expected `KERAS_DYNFILTER_IMPLEMENTATION` to be one of" in done.stdout


def test_info_builds_nothing_for_composite(monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, "composite")
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("loaded the library"))
    assert info.main([]) == 0
    assert "ddf2d                     composite, because the environment variable" in capsys.readouterr().out


Library = library_module.Library


@pytest.mark.parametrize(
    "library, requested, status, text",
    [
        (Library(reason="no compiler"), "auto", 0, "composite, because the compiled ops are not available: "),
        (Library(reason="no compiler"), "native", 1, "none: .* asks for the native ops, .* not available: no compiler"),
        (Library(ops=object(), xla_reason="too old"), "auto", 0, "jit_compile  .* supports_jit=False: too old"),
        (Library(ops=object()), "auto", 0, "CUDA kernels  +no, "),
        (Library(ops=object(), cuda=True), "auto", 0, "CUDA kernels  +yes"),
        (Library(ops=object(), paths=("/a.so",), notes=("no nvcc",)), "auto", 0, "library  +/a.so\nnote  +no nvcc"),
    ],
)
def test_info_names_what_is_missing(library, requested, status, text, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: library)
    assert info.main([]) == status
    assert re.search(text, capsys.readouterr().out)


@pytest.mark.parametrize("requested, filters", [("auto", "composite"), ("native", "native")])
def test_info_prints_the_choice_of_every_op(requested, filters, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: Library(ops=object()))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert info.main([]) == 0
    out = capsys.readouterr().out
    for op in info.FILTER_OPS:
        assert re.search(rf"^{op} +{filters}, because ", out, re.MULTILINE)
    assert re.search("^project_and_pool +composite, because its compiled kernel runs on CPUs only", out, re.MULTILINE)


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), (["--verbose"], 2)])
def test_info_arguments(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("loaded the library"))
    with pytest.raises(SystemExit) as stop:
        info.main(arguments)
    assert stop.value.code == status
    assert "python -m keras_dynfilter.info" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--op", "conv"], "Expected --op to be one of"),
        (["--quick", "--op", "dynamic_conv2d"], "Expected --op to be one of ddf2d, .* with --quick"),
        (["--json", "/proc/x/bench.jsonl"], "Expected --json to be a file that can be written"),
    ],
)
def test_benchmarks_refuse(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: pytest.fail("began to measure"))
    with pytest.raises(SystemExit) as stop:
        benchmarks.main()
    assert stop.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def instant(monkeypatch, tmp_path):
    """Runs the benchmarks with made-up times; returns what they print."""
    monkeypatch.setattr(cases, "candidates", lambda case: dict.fromkeys(TIMES, (None, ())))
    monkeypatch.setattr(cases, "with_gradients", lambda function, operands, xla: function)
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: 10.0)
    monkeypatch.setattr(timing, "peak_mb", lambda call: 1.23456)

    def run(times, *arguments):
        queue = []

        def median_ms(call):
            if not queue:
                queue.extend(times.values())
            return queue.pop(0)

        monkeypatch.setattr(timing, "median_ms", median_ms)
        monkeypatch.setattr("sys.argv", ["benchmarks", "--json", str(tmp_path / "b.jsonl"), *arguments])
        benchmarks.main()
        return [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]

    return run


TIMES = {"ours": 1.0, "composed, XLA": 9.0, "slices, XLA": 1.5, "TF depthwise": 1.5}


def test_benchmarks_end_with_the_bars(instant, capsys):
    rows = instant(TIMES)
    assert len(rows) == len(cases.CASES) * 2 * len(TIMES) and {row["peak_mb"] for row in rows} == {1.2}
    out = capsys.readouterr().out
    assert out.count("MISSED") == 3 and out.count(": met") == 2 and "not measured" not in out
    assert "(2x200x300x256; 3x3, mul), forward: ours / TF depthwise: 0.67, at most 0.60: MISSED" in out
    instant(TIMES, "--quick")
    assert "Bars" not in capsys.readouterr().out


def test_bars_need_figures():
    assert len(targets.lines([])) == len(targets.BARS) and all("not measured" in line for line in targets.lines([]))
