# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.filter_norm`: its forms differ in the normalisation only, and are all timed."""

import json

import numpy as np
import pytest

from benchmarks import filter_norm, measure
from keras_dynfilter.layers import DDF2D

SHAPE = (2, 5, 6, 4)


@pytest.mark.parametrize("backward", [False, True])
def test_forms(native_xla, backward):
    made = {normalization: DDF2D(3, normalization=normalization) for normalization in (None, "filter")}
    calls = filter_norm.calls(made.get, SHAPE, backward)
    assert tuple(calls) == tuple(filter_norm.FORMS)
    found = {form: call() for form, call in calls.items()}
    if backward:
        assert len(found["with"]) == 1 + len(made["filter"].trainable_weights)
    found = {form: np.asarray(value[0] if backward else value) for form, value in found.items()}
    for form in ("with", "without"):
        np.testing.assert_allclose(found[form], found[f"{form}, XLA"], rtol=1e-3, atol=1e-4)
    assert np.abs(found["without"] - found["with"]).max() > 1e-3


def test_report(monkeypatch, tmp_path, capsys):
    ms = dict(zip(filter_norm.FORMS, (1.0, 2.0, 4.0, 3.0)))
    monkeypatch.setattr(measure, "in_turns", lambda calls, budget: {name: ms[name] for name in calls})
    path = tmp_path / "new" / "times.jsonl"
    filter_norm.main(["--only", "DDF2D, 7x7", "--json", str(path)])
    forward, both = map(json.loads, path.read_text().splitlines())
    assert forward["ms"] == both["ms"] == ms and (forward["backward"], both["backward"]) == (False, True)
    out = capsys.readouterr().out
    assert "DDF2D, 7x7, both" in out and "1.00          2.00          4.00          3.00" in out


def test_refuses(capsys):
    with pytest.raises(SystemExit):
        filter_norm.parse(["--seconds", "0"])
    assert "Expected --seconds to be above zero. Received: 0.0" in capsys.readouterr().err
