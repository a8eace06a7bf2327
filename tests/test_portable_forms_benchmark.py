# SPDX-License-Identifier: Apache-2.0
"""The benchmark of portable forms, on images too small to time: what differs, spoils or does not convert is seen."""

import json

import pytest

from benchmarks import portable_forms as benchmark

CASE = "local 3x3, 1 channel"


def test_forms_are_measured_and_compared(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    forms = {name: benchmark.ONE_CHANNEL[name] for name in (benchmark.PATCHES, "one-hot convolution")}
    forms["broken"] = lambda *_: 1 / 0
    monkeypatch.setattr(benchmark, "forms", lambda name: forms)
    path = tmp_path / "forms.json"
    arguments = ["--only", CASE, "--runtimes", "onnxruntime", "--shrink", "32", "--rounds", "1", "--json", str(path)]
    benchmark.main(arguments)
    found = json.loads(path.read_text())["cases"][CASE]["onnxruntime"]
    assert found["used"] == benchmark.PATCHES
    assert [found["forms"][name].get("exact") for name in forms] == [True, False, None]
    assert "division" in found["forms"]["broken"]["failed"] and "spoils neighbours" in capsys.readouterr().out

    del forms["broken"]
    forms["other"] = lambda inputs, *_: inputs
    with pytest.raises(AssertionError, match="other"):
        benchmark.measured(CASE, "onnxruntime", 32, 1)


@pytest.mark.parametrize("name", benchmark.CASES)
def test_the_first_form_is_the_one_in_use(name, monkeypatch):
    from keras_dynfilter.ops import _composite
    from keras_dynfilter.ops.geometry import Geometry

    called = []
    for form in ("patches", "gathered", "scattered"):
        monkeypatch.setattr(_composite, form, lambda *args, form=form: called.append(form) or args[0])
    weight, shape, window, heads = benchmark.CASES[name]
    image = benchmark.tf.zeros((1, 3, 3, shape[-1]))
    factors = {"spatial": (image, None), "softmax": (image, None), "channel": (None, image), "mul": (image, image)}
    _composite.filter2d(image, *factors[weight], weight, Geometry.make(window, heads=heads))
    used = next(iter(benchmark.forms(name)))
    one_channel = {benchmark.PATCHES: "patches"} if shape[-1] == 1 else {}
    assert called == [{benchmark.GATHERED: "gathered", benchmark.SCATTERED: "scattered", **one_channel}[used]]
