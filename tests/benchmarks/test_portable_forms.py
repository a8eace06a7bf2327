# SPDX-License-Identifier: Apache-2.0
"""The benchmark of portable forms, on images too small to time: what differs, spoils or does not convert is seen."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.export import portable_forms as benchmark
from benchmarks.ops import composite_forms as composed
from keras_dynfilter import ops
from keras_dynfilter.ops import dynamic_conv
from keras_dynfilter.ops.backends import composite

CASE = "local 3x3, 256x256x1"


def test_forms_are_measured_and_compared(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    forms = {name: composed.ONE_CHANNEL[name] for name in (composed.PATCHES, "one-hot convolution")}
    forms["broken"] = lambda *_: 1 / 0
    monkeypatch.setattr(composed.Case, "forms", lambda case: forms)
    path = tmp_path / "forms.json"
    arguments = ["--only", CASE, "--runtimes", "onnxruntime", "--shrink", "32", "--rounds", "1", "--json", str(path)]
    benchmark.main(arguments)
    found = json.loads(path.read_text())["cases"][CASE]["onnxruntime"]
    assert found["used"] == composed.PATCHES
    assert [found["forms"][name].get("exact") for name in forms] == [True, False, None]
    assert "division" in found["forms"]["broken"]["failed"] and "spoils neighbours" in capsys.readouterr().out

    del forms["broken"]
    forms["other"] = lambda inputs, *_: inputs
    with pytest.raises(AssertionError, match="other"):
        benchmark.measured(CASE, "onnxruntime", 32, 1)


@pytest.mark.parametrize("name", composed.CASES)
def test_the_first_form_is_the_one_in_use(name, monkeypatch):
    called = []
    places = [(composite, form) for form in ("patches", "gathered", "scattered")]
    places += [(dynamic_conv, form) for form in ("_matmul", "_per_position")]
    for module, form in places:
        monkeypatch.setattr(module, form, lambda inputs, *_, form=form: called.append(form) or inputs)
    case = composed.CASES[name]
    operands = {
        key: tf.zeros([a or b for a, b in zip(spec.shape, (*case.sizes(28)[key], *spec.shape[3:]))])
        for key, spec in case.specs().items()
    }
    if "filters" in operands:
        (ops.dynamic_conv2d if case.weight == "bank" else ops.local_conv2d)(**operands)
    else:
        case.compute(composite.filter2d, operands)
    wanted = {composed.GATHERED: "gathered", composed.SCATTERED: "scattered", composed.PATCHES: "patches"}
    wanted[composed.MATMUL] = "_matmul" if case.weight == "bank" else "_per_position"
    assert called == [wanted[next(iter(case.forms()))]]


@pytest.mark.parametrize("name", [name for name, case in composed.CASES.items() if "bank" in case.weight])
def test_the_forms_of_banks_agree(name):
    """Those of the family are compared by the tests of the ops and, all of them, whenever the benchmark runs."""
    case, rng = composed.CASES[name], np.random.default_rng(0)
    shapes = {
        key: [a or b for a, b in zip(spec.shape, (2, 4, 5, *spec.shape[3:]))] for key, spec in case.specs().items()
    }
    operands = {key: tf.constant(rng.standard_normal(shape, "float32")) for key, shape in shapes.items()}
    results = [case.compute(form, operands) for form in case.forms().values()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-4)
