# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.onnxruntime` compares the results of all forms, and judges its targets correctly."""

import pytest

from benchmarks import timing
from benchmarks.export import onnxruntime as benchmark

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


def test_all_forms_are_measured_and_must_agree(native_library, ort_library, monkeypatch):
    forms = benchmark.calls("ddf2d", 32, 1)
    assert list(forms) == [benchmark.TF, benchmark.PORTABLE, benchmark.BODY, benchmark.KERNEL]
    called = []
    times = iter([*range(16), 100.0, 16, 17, 18])  # measured in turns; 100.0 is a disturbed measurement
    monkeypatch.setattr(timing, "median_ms", lambda call, budget: called.append(call) or next(times))
    monkeypatch.setattr(benchmark, "calls", lambda *_: forms)
    assert list(benchmark.measure("ddf2d", 32, 1, 0.0).values()) == [8, 9, 10, 11]
    assert called == [*forms.values()] * 5  # five rounds

    expected = forms[benchmark.TF]()
    forms[benchmark.KERNEL] = lambda: expected + 1.0
    with pytest.raises(AssertionError, match=benchmark.KERNEL):
        benchmark.measure("ddf2d", 32, 1, 0.0)


@pytest.mark.parametrize(
    "kernel, portable, verdicts",
    [(1.15, 6.0, ["met", "met"]), (1.2, 6.0, ["MISSED", "met"]), (1.0, 4.9, ["met", "MISSED"])],
)
def test_targets(kernel, portable, verdicts):
    ms = {benchmark.TF: 1.0, benchmark.PORTABLE: portable, benchmark.BODY: 9.0, benchmark.KERNEL: kernel}
    assert [line.rsplit(" ", 1)[1] for line in benchmark.report_targets("ddf2d", ms)] == verdicts
