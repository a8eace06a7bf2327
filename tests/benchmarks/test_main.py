# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks` refuses wrong options, writes rows and reports targets."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import __main__ as benchmark
from benchmarks import timing
from benchmarks.ops import cases, op_targets


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--op", "conv"], "Expected --op to be one of"),
        (["--quick", "--op", "dynamic_conv2d"], "Expected --op to be one of ddf2d, .* with --quick"),
    ],
)
def test_bad_arguments(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: pytest.fail("started to measure"))
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: pytest.fail("started to measure"))
    with pytest.raises(SystemExit, match=r"Expected --json to be a file that can be written\. Received: /proc/x/b"):
        benchmark.main(["--json", "/proc/x/b"])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Returns a function that runs the benchmark with given times instead of measured times, and returns its rows."""
    monkeypatch.setattr(cases, "candidates", lambda case: dict.fromkeys(TIMES, (None, ())))
    monkeypatch.setattr(cases, "with_gradients", lambda function, operands, xla: function)
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: 10.0)
    monkeypatch.setattr(timing, "peak_mb", lambda call: 1.23456)

    def run_with(times, *arguments):
        queue = []

        def median_ms(call):
            if not queue:
                queue.extend(times.values())
            return queue.pop(0)

        monkeypatch.setattr(timing, "median_ms", median_ms)
        benchmark.main(["--json", str(tmp_path / "b.jsonl"), *arguments])
        return [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]

    return run_with


TIMES = {"ours": 1.0, "composite, XLA": 9.0, "slices, XLA": 1.5, "TF depthwise": 1.5}


def test_the_benchmark_ends_with_the_targets(run, capsys):
    rows = run(TIMES)
    assert len(rows) == len(cases.CASES) * 2 * len(TIMES) and {row["peak_mb"] for row in rows} == {1.2}
    out = capsys.readouterr().out
    assert out.count("MISSED") == 3 and out.count(": met") == 2 and "not measured" not in out
    assert "(2x200x300x256; 3x3, mul), forward: ours / TF depthwise: 0.67, at most 0.6: MISSED" in out
    run(TIMES, "--quick")
    assert "Targets" not in capsys.readouterr().out


def test_targets_without_measurements():
    lines = op_targets.report([])
    assert len(lines) == len(op_targets.TARGETS) and all("not measured" in line for line in lines)


@pytest.mark.parametrize("case", cases.QUICK, ids=lambda case: case.op)
def test_slices_compute_what_the_op_computes(case):
    small = dataclasses.replace(case, shape=(2, 5, 6, case.shape[3]))
    rng = np.random.default_rng(0)
    shapes = [
        (2, 5, 6, shape[3]) if shape[1:3] == case.shape[1:3] else (2, *shape[1:])  # per position, or per sample
        for shape in case.filters
    ]
    operands = [tf.constant(rng.standard_normal(shape, "float32")) for shape in (small.shape, *shapes)]
    np.testing.assert_allclose(small.slices(*operands), small.apply(*operands), rtol=1e-4, atol=1e-4)
