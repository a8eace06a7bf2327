# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.portable_forms` finds forms that differ, spoil neighbours or cannot be converted."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.export import portable_forms as benchmark
from benchmarks.ops import composite_forms
from keras_dynfilter import ops
from keras_dynfilter.ops import dynamic_conv
from keras_dynfilter.ops.backends import composite

CASE = "local 3x3, 256x256x1"


def test_forms_are_measured_and_compared(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    forms = {name: composite_forms.ONE_CHANNEL[name] for name in (composite_forms.WINDOWS, "one-hot convolution")}
    forms["broken"] = lambda *_: 1 / 0
    monkeypatch.setattr(composite_forms.Case, "forms", lambda case: forms)
    path = tmp_path / "forms.json"
    arguments = ["--only", CASE, "--runtimes", "onnxruntime", "--shrink", "32", "--rounds", "1", "--json", str(path)]
    benchmark.main(arguments)
    results = json.loads(path.read_text())["cases"][CASE]["onnxruntime"]
    assert results["used"] == composite_forms.WINDOWS
    assert [results["forms"][name].get("exact") for name in forms] == [True, False, None]
    assert "division" in results["forms"]["broken"]["failed"] and "spoils neighbours" in capsys.readouterr().out

    del forms["broken"]
    forms["other"] = lambda inputs, *_: inputs
    with pytest.raises(AssertionError, match="other"):
        benchmark.measure(CASE, "onnxruntime", 32, 1)


@pytest.mark.parametrize("name", composite_forms.CASES)
def test_the_first_form_is_the_one_in_use(name, monkeypatch):
    called = []
    functions = [(composite, form) for form in ("windows", "slices", "canvas")]
    functions += [(dynamic_conv, form) for form in ("matmul_per_sample", "matmul_per_position")]
    for module, form in functions:
        monkeypatch.setattr(module, form, lambda inputs, *_, form=form: called.append(form) or inputs)
    case = composite_forms.CASES[name]
    operands = {
        key: tf.zeros([a or b for a, b in zip(spec.shape, (*case.operand_sizes(28)[key], *spec.shape[3:]))])
        for key, spec in case.specs().items()
    }
    if "filters" in operands:
        (ops.dynamic_conv2d if case.kind == "per_sample" else ops.local_conv2d)(**operands)
    else:
        case.compute(composite.filter2d, operands)
    used = next(iter(case.forms()))
    function_of = {
        composite_forms.SLICES: "slices",
        composite_forms.CANVAS: "canvas",
        composite_forms.WINDOWS: "windows",
        composite_forms.MATMUL: f"matmul_{case.kind}",
    }
    assert called == [function_of[used]]


@pytest.mark.parametrize("name", [name for name, case in composite_forms.CASES.items() if case.maps])
def test_forms_for_filters_that_mix_channels_agree(name):
    """Other forms are not tested here: the tests of the ops compare the forms in use, each benchmark compares all."""
    case, rng = composite_forms.CASES[name], np.random.default_rng(0)
    shapes = {
        key: [a or b for a, b in zip(spec.shape, (2, 4, 5, *spec.shape[3:]))] for key, spec in case.specs().items()
    }
    operands = {key: tf.constant(rng.standard_normal(shape, "float32")) for key, shape in shapes.items()}
    results = [case.compute(form, operands) for form in case.forms().values()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-4)
