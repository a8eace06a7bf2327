# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.filter_norm`: its forms differ only in the normalisation, and it reports all forms."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import filter_norm
from keras_dynfilter.layers import DDF2D

SHAPE = (2, 5, 6, 4)


@pytest.mark.parametrize("backward", [False, True])
def test_forms(native_xla, backward):
    layers = {norm: DDF2D(3, spatial_norm=norm, channel_norm=norm) for norm in (None, "filter")}
    calls = filter_norm.calls(layers.get, SHAPE, 2, backward)
    assert tuple(calls) == tuple(filter_norm.FORMS)
    results = {form: call() for form, call in calls.items()}
    if backward:
        assert len(results["with"]) == 1 + len(layers["filter"].trainable_weights)
    else:
        np.testing.assert_allclose(results["with"], layers["filter"](layers["filter"](inputs())), rtol=1e-4, atol=1e-5)
    results = {form: np.asarray(value[0] if backward else value) for form, value in results.items()}
    for form in ("with", "without"):
        np.testing.assert_allclose(results[form], results[f"{form}, XLA"], rtol=1e-3, atol=1e-4)
    assert np.abs(results["without"] - results["with"]).max() > 1e-3


def inputs():
    tf.random.set_seed(0)
    return tf.random.normal(SHAPE)


@pytest.mark.parametrize("case", [case for case in filter_norm.CASES if "resnet50" not in case])
@pytest.mark.parametrize("normalization", [None, "filter"])
def test_cases_take_the_normalisation(case, normalization):
    model = filter_norm.CASES[case][0](normalization)
    modules = [layer for layer in (model, *getattr(model, "layers", ())) if isinstance(layer, DDF2D)]
    assert modules and {module.spatial_norm.argument for module in modules} == {normalization}


def test_report(monkeypatch, tmp_path, capsys):
    ms = dict(zip(filter_norm.FORMS, (20.0, 40.0, 80.0, 60.0)))
    monkeypatch.setattr(timing, "in_turns", lambda calls, budget: {name: ms[name] for name in calls})
    path = tmp_path / "new" / "times.jsonl"
    filter_norm.main(["--only", "DDF2D, 32x7x7x256", "--json", str(path)])
    forward, both = map(json.loads, path.read_text().splitlines())
    assert forward["in_a_row"] == 20 and (forward["backward"], both["backward"]) == (False, True)
    assert forward["ms"] == both["ms"] == {name: value / 20 for name, value in ms.items()}
    out = capsys.readouterr().out
    line = "DDF2D, 32x7x7x256, both                   1.00      2.00  +100 %          4.00       3.00   -25 %"
    assert line in out
