# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.filter_norm`: its forms differ in the normalisation only, and are all timed."""

import json

import numpy as np
import pytest

from benchmarks import filter_norm, measure
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.ops import _normalize


@pytest.mark.parametrize("backward", [False, True])
def test_forms(native_xla, monkeypatch, backward):
    layer = DDF2D(3)
    layer.build((2, 5, 6, 4))

    def make(normalization):
        if normalization is None:
            return DDF2D(3, normalization=None)
        return layer  # the same weights

    composed, traced = _normalize._standardized, []
    monkeypatch.setattr(_normalize, "_standardized", lambda *given: traced.append(1) or composed(*given))
    with monkeypatch.context() as patch:
        patch.setattr(filter_norm, "FORMS", ("none", "ours", "ours, XLA"))
        filter_norm.calls(make, (2, 5, 6, 4), backward)
    assert not traced
    calls = filter_norm.calls(make, (2, 5, 6, 4), backward)
    assert tuple(calls) == filter_norm.FORMS and len(traced) >= 2 * 2  # forms, kinds of filters
    found = {form: call() for form, call in calls.items()}
    found = {form: np.asarray(value[0] if backward else value) for form, value in found.items()}
    for form in ("composed", "ours, XLA", "composed, XLA"):
        np.testing.assert_allclose(found[form], found["ours"], rtol=1e-3, atol=1e-4)
    assert np.abs(found["none"] - found["ours"]).max() > 1e-3


def test_report(native_xla, monkeypatch, tmp_path, capsys):
    ms = dict(zip(filter_norm.FORMS, (1.0, 2.0, 4.0, 3.0, 3.0)))
    monkeypatch.setattr(measure, "in_turns", lambda calls, budget: {name: ms[name] for name in calls})
    monkeypatch.setattr(measure, "copy_gb_per_s", lambda: 10.0)
    path = tmp_path / "new" / "times.jsonl"
    filter_norm.main(["--only", "channel filters", "--json", str(path)])
    forward, both = map(json.loads, path.read_text().splitlines())
    assert forward["ms"] == both["ms"] == {name: value for name, value in ms.items() if name != "none"}
    assert forward["copy_ms"] == pytest.approx(2 * 4e-6 * 32 * 9 * 256 / 10)
    out = capsys.readouterr().out
    assert "channel filters (32x3x3x256), forward + backward" in out and "composed             4.000     0.50" in out


def test_refuses(monkeypatch, capsys):
    monkeypatch.setattr(_normalize, "native", lambda: False)
    with pytest.raises(SystemExit, match="the compiled op is not used here"):
        filter_norm.main([])
    with pytest.raises(SystemExit):
        filter_norm.parse(["--seconds", "0"])
    assert "Expected --seconds to be above zero. Received: 0.0" in capsys.readouterr().err
