# SPDX-License-Identifier: Apache-2.0
"""ONNX files with native ops run in sessions with and without the library of ops."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export, layers
from keras_dynfilter.export import formats, runtime_library
from keras_dynfilter.export.writers import onnx_native
from tests.support import export_models as models

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
pytestmark = [pytest.mark.legacy, pytest.mark.usefixtures("native_library")]

MODELS = {
    "local": (models.local_filter, "LocalFilter2D"),
    "local, 5x5, softmax, stride 2, 2 heads": (
        lambda: models.local_filter(5, 2, 2, normalization="softmax"),
        "SoftmaxLocalFilter2D",
    ),
    "local, dilation 3, valid, fixed size": (
        lambda: models.local_filter(dilation_rate=3, padding="valid", size=(19, 11)),
        "LocalFilter2D",
    ),
    "depthwise": (models.depthwise, "DynamicDepthwiseConv2D"),
    "ddf, mul": (models.ddf, "DDF2D"),
    "ddf, add, 2 heads": (lambda: models.ddf("add", 2), "DDF2D"),
    "ddf, module": (models.ddf_module, "DDF2D"),
}


def write(model, path, validate=False, **options):
    return export.export(model, path, "onnx", "native", validate, verbose=False, **options)


def session(stored, library=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(library)
    content = stored if isinstance(stored, (bytes, str)) else stored.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", MODELS)
def test_bodies_and_kernels_compute_what_the_model_computes(name, ort_library, tmp_path):
    make, op = MODELS[name]
    model = make()
    report = write(model, tmp_path / "model.onnx")
    stored = onnx.load(report.path)
    assert report.nodes[op] == 1 and [node.op_type for node in stored.graph.node if node.domain] == [op]
    assert {node.domain for function in stored.functions for node in function.node} == {""}
    for size in ((19, 11), (6, 23)):
        size = model.inputs[0].shape[1:3] if model.inputs[0].shape[1] else size
        inputs = {"image": np.random.default_rng(0).standard_normal((3, *size, 4)).astype("float32")}
        (expected,) = models.run(model, inputs["image"])
        kernel_only = onnx.load(report.path)
        del kernel_only.functions[:]
        for runnable in (session(stored), session(stored, ort_library), session(kernel_only, ort_library)):
            np.testing.assert_allclose(runnable.run(None, inputs)[0], expected, rtol=1e-4, atol=1e-5)


def test_sessions_with_the_library_ignore_the_body(ort_library, tmp_path):
    """A wrong body changes the results of a stock session only."""
    stored = onnx.load(write(models.local_filter(), tmp_path / "model.onnx").path)
    function = stored.functions[0]
    (outputs,) = function.output
    (last,) = (node for node in function.node if outputs in node.output)
    last.output[:] = ["right"]
    function.node.append(onnx.helper.make_node("Neg", ["right"], [outputs]))
    inputs = {"image": np.random.default_rng(0).standard_normal((1, 7, 5, 4)).astype("float32")}
    body, kernel = (session(stored, library).run(None, inputs)[0] for library in (None, ort_library))
    assert np.abs(kernel).max() > 0.1
    np.testing.assert_allclose(body, -kernel, rtol=1e-4, atol=1e-5)


def test_one_body_for_each_configuration(ort_library, tmp_path):
    image = keras.Input((None, None, 4), name="image")
    x = image
    for kernel_size, heads in ((3, 1), (5, 1), (3, 1), (3, 2)):
        options = {"kernel_size": kernel_size, "heads": heads}
        x = models.Apply("local_filter2d", options)([x, keras.layers.Conv2D(heads * kernel_size**2, 1)(x)])
    report = write(keras.Model(image, x), tmp_path / "model.onnx", validate=True)
    assert report.passed and report.nodes["LocalFilter2D"] == 4
    stored = onnx.load(report.path)
    domains = [function.domain for function in stored.functions]
    assert domains == ["keras_dynfilter", "keras_dynfilter.2", "keras_dynfilter.3"]
    assert {node.domain for node in stored.graph.node} == {"", *domains}
    del stored.functions[:]  # the library has kernels in each of these domains
    inputs = np.random.default_rng(0).standard_normal((2, 9, 8, 4)).astype("float32")
    (outputs,) = session(stored, ort_library).run(None, {"image": inputs})
    (expected,) = models.run(keras.Model(image, x), inputs)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_too_many_configurations(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_native, "MAX_DOMAINS", 1)
    image = keras.Input((None, None, 9), name="image")
    x = models.Apply("local_filter2d", {"kernel_size": 3})([image, image])
    model = keras.Model(image, models.Apply("local_filter2d", {"kernel_size": 3, "dilation_rate": 2})([x, image]))
    with pytest.raises(export.ExportError, match=r"1 configurations of LocalFilter2D at most.*has 2"):
        write(model, tmp_path / "model.onnx")


def test_the_last_domain_is_registered(ort_library, tmp_path):
    stored = onnx.load(write(models.local_filter(), tmp_path / "model.onnx").path)
    del stored.functions[:]
    (node,) = (node for node in stored.graph.node if node.domain)
    (entry,) = (entry for entry in stored.opset_import if entry.domain == node.domain)
    node.domain = entry.domain = f"keras_dynfilter.{onnx_native.MAX_DOMAINS}"
    session(stored, ort_library)
    node.domain = entry.domain = f"keras_dynfilter.{onnx_native.MAX_DOMAINS + 1}"
    with pytest.raises(Exception, match="LocalFilter2D"):
        session(stored, ort_library)


@pytest.mark.parametrize("opset", formats.FORMATS["onnx"].opsets)
def test_opsets(opset, ort_library, tmp_path):
    report = write(models.ddf_module(), tmp_path / "model.onnx", export.Validation(batch_sizes=(2,)), opset=opset)
    assert report.passed and report.opset == opset
    stored = onnx.load(report.path)
    for holder in (stored, *stored.functions):
        assert {entry.domain: entry.version for entry in holder.opset_import}[""] == opset


def test_report_has_both_sessions(ort_library, tmp_path):
    report = write(models.local_filter(), tmp_path / "model.onnx", export.Validation(image_sizes=[(9, 7)]))
    assert report.passed and not report.validation.notes
    assert report.validation.runtime.endswith("without the op library and with the op library")
    cases = report.validation.cases
    assert set(report.validation.seconds_per_run) == {
        f"{case}, {which} the op library" for case in cases for which in ("with", "without")
    }


def test_report_notes_a_missing_library(monkeypatch, tmp_path):
    def missing():
        raise RuntimeError("no headers here")

    monkeypatch.setattr(runtime_library, "ort_library", missing)
    report = write(models.local_filter(), tmp_path / "model.onnx", export.Validation(image_sizes=[(9, 7)]))
    assert report.passed and "no headers here" in report.validation.notes[0]
    assert "note        the compiled kernels were not validated" in str(report)


def test_wrong_body_fails_the_validation(ort_library, monkeypatch, tmp_path):
    from keras_dynfilter.ops.backends import composite

    monkeypatch.setattr(composite, "shifted", lambda padded, tap, geometry: padded[:, 2:, 2:, :])
    with pytest.raises(export.ValidationError) as caught:
        write(models.local_filter(), tmp_path / "model.onnx", export.Validation(image_sizes=[(9, 7)]))
    (check,) = caught.value.report.validation.outputs
    assert "without the op library" in check.worst
    assert not list(tmp_path.iterdir())


def test_half_precision(ort_library, tmp_path):
    image = keras.Input((None, None, 4), name="image")
    filters = keras.layers.Conv2D(9, 3, padding="same", dtype="mixed_float16")(image)
    layer = models.Apply("local_filter2d", {"kernel_size": 3}, dtype="mixed_float16")
    report = write(keras.Model(image, layer([image, filters])), tmp_path / "model.onnx", validate=True)
    assert report.passed and report.validation.outputs[0].dtype == "float16"
    assert onnx.load(report.path).functions[0].doc_string.startswith("float16_3x3")


def test_infinite_filter_value_outside_the_image(ort_library, tmp_path):
    _, sample = models.infinite_filter_value()
    image, filters = keras.Input((None, None, 1), name="image"), keras.Input((None, None, 9), name="filters")
    model = keras.Model([image, filters], layers.DynamicLocalFilter2D(3, padding="same")([image, filters]))
    report = write(model, tmp_path / "model.onnx", export.Validation(sample_inputs=sample))
    assert report.passed
    for library in (None, ort_library):
        assert np.isfinite(session(report.path, library).run(None, sample)[0]).all()


def test_format_without_native_ops(monkeypatch, tmp_path):
    monkeypatch.setitem(formats.FORMATS, "onnx", dataclasses.replace(formats.FORMATS["onnx"], ops=("portable",)))
    with pytest.raises(ValueError, match="onnx does not support native ops"):
        write(models.local_filter(), tmp_path / "model.onnx")


def test_gradients_cannot_be_exported(tmp_path):
    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Gradient(keras.layers.Layer):
        def call(self, inputs):
            from keras_dynfilter import ops

            return tf.gradients(ops.local_filter2d(*inputs, kernel_size=3), inputs[0])[0]

    image, filters = keras.Input((None, None, 1), name="image"), keras.Input((None, None, 9), name="filters")
    with pytest.raises((export.ExportError, ValueError), match=r"GradInputs|gradients"):
        write(keras.Model([image, filters], Gradient()([image, filters])), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "make, opset",
    [
        (models.ddf_module, None),  # the default opset of tf2onnx
        pytest.param(models.every_op, 18, marks=pytest.mark.slow),
    ],
)
def test_export_of_keras(make, opset, tmp_path):
    export.register_onnx_handlers()
    model = make()
    inputs = np.random.default_rng(0).standard_normal((3, 19, 11, 4)).astype("float32")
    expected = model(inputs, training=False)
    expected = expected if isinstance(expected, dict) else {"filtered": expected}
    model.export(tmp_path / "model.onnx", format="onnx", opset_version=opset, verbose=False)
    stored = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in stored.graph.node} == {""} and not stored.functions
    loaded = session(stored)
    outputs = loaded.run(None, {loaded.get_inputs()[0].name: inputs})
    for result, (name, values) in zip(outputs, sorted(expected.items()), strict=True):
        scale = np.abs(values).max()
        np.testing.assert_allclose(result, values, rtol=0, atol=1e-5 * max(scale, 1), err_msg=name)


def test_export_of_keras_skips_taps_outside_the_image(tmp_path):
    model, sample = models.infinite_filter_value()
    export.register_onnx_handlers()
    model(list(sample.values()))  # Keras exports only models that have been called
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    assert np.isfinite(session(str(tmp_path / "model.onnx")).run(None, sample)[0]).all()
