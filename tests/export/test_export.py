# SPDX-License-Identifier: Apache-2.0
"""Exported files compute the same outputs as their models, and the reports describe the files."""

import json
import pathlib
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export, implementation, layers
from keras_dynfilter.ops.backends import library
from tests.support import export_models as models

pytestmark = pytest.mark.legacy


@pytest.fixture
def onnxruntime():
    pytest.importorskip("tf2onnx")
    return pytest.importorskip("onnxruntime")


def session(onnxruntime, path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.DynamicLocalFilter2D(3, padding="same", generator=keras.layers.Conv2D(9, 3, padding="same")),
        lambda: layers.DynamicLocalFilter2D(
            5,
            padding="same",
            normalization="softmax",
            separable=True,
            dynamic_bias="after",
            generator=keras.layers.Conv2D(11, 1),
        ),
    ],
)
def test_layers_in_onnx(layer, onnxruntime, tmp_path):
    image = keras.Input((None, None, 2), name="image")
    model = keras.Model(image, layer()(image))
    assert export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False).passed


@pytest.mark.parametrize(
    "make, opset",
    [
        (models.local_filter, 15),
        pytest.param(models.every_op, 15, marks=pytest.mark.slow),
        (models.depthwise, 16),
        (models.ddf_module, 17),
    ],
)
def test_opsets(make, opset, onnxruntime, tmp_path):
    """Tests the older opsets. test_every_op.py writes every op in the newest opset, which is the default."""
    import onnx

    validation = export.Validation(batch_sizes=(2,), image_sizes=((7, 5),))
    report = export.export(make(), tmp_path / "m.onnx", "onnx", validate=validation, opset=opset, verbose=False)
    assert report.passed
    stored = onnx.load(report.path)
    assert report.opset == opset
    assert {entry.domain: entry.version for entry in stored.opset_import}[""] == opset
    assert {node.domain for node in stored.graph.node} == {""}
    assert sum(report.nodes.values()) >= len(stored.graph.node)


@pytest.mark.parametrize("format", ["saved_model", "onnx", "litert"])
def test_convolution_with_groups_beside_a_layer(format, tmp_path):
    """Keras computes such a convolution in a function that XLA compiles, which other runtimes cannot call."""
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)
    image = keras.Input((8, 8, 4), name="image")
    grouped = keras.layers.Conv2D(8, 3, groups=2, padding="same")(image)
    model = keras.Model(image, layers.DDF2D(3)(grouped))
    path = tmp_path / f"model{export.FORMATS[format].suffix}"
    assert export.export(model, path, format=format, verbose=False).passed


class Repeated(keras.layers.Layer):
    """Calls a convolution with groups three times, in a loop of the graph."""

    def build(self, input_shape):
        self.convolution = keras.layers.Conv2D(4, 3, groups=2, padding="same")
        self.convolution.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.convolution(x)), [0, inputs])[1]


@pytest.mark.slow
def test_convolution_with_groups_inside_a_loop(tmp_path):
    pytest.importorskip("tf2onnx")
    image = keras.Input((8, 8, 4), name="image")
    model = keras.Model(image, Repeated()(image))
    assert export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False).passed


def test_newest_opset_is_the_default(onnxruntime, tmp_path):
    report = export.export(models.depthwise(), tmp_path / "m.onnx", format="onnx", validate=False, verbose=False)
    assert report.opset == export.FORMATS["onnx"].opsets[-1] == 18


def test_names_and_axes_in_onnx(onnxruntime, tmp_path):
    report = export.export(models.two_by_name(), tmp_path / "m.onnx", format="onnx", verbose=False)
    loaded = session(onnxruntime, report.path)
    inputs = {value.name: value.shape for value in loaded.get_inputs()}
    assert inputs == {
        "image": ["batch", "image_height", "image_width", 2],
        "guide": ["batch", "guide_height", "guide_width", 3],
    }
    outputs = {value.name: value.shape for value in loaded.get_outputs()}
    assert outputs == {"filtered": ["batch", "filtered_height", "filtered_width", 2], "mean": ["batch", 2]}
    assert {name: shape for name, (_, shape) in report.outputs.items()} == outputs


@pytest.mark.parametrize(
    "format, names", [("saved_model", ["left_image", "arg_2d"]), ("onnx", ["left-image", "2d"]), ("litert", None)]
)
def test_names_that_are_not_identifiers(format, names, tmp_path):
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)
    inputs = [keras.Input((4, 4, 1), name="left-image"), keras.Input((4, 4, 1), name="2d")]
    model = keras.Model(inputs, keras.layers.Add(name="2d_sum")(inputs))
    path = tmp_path / f"m{export.FORMATS[format].suffix}"
    report = export.export(model, path, format, validate=export.Validation(batch_sizes=(1, 2)), verbose=False)
    assert report.passed and list(report.inputs) == (names or ["left_image", "arg_2d"])
    assert list(report.outputs) == ["2d_sum"]


def test_subclassed_model_with_two_arguments(onnxruntime, tmp_path):
    model = models.subclassed()
    with pytest.raises(ValueError, match="input_signature"):
        export.export(model, tmp_path / "m.onnx", format="onnx")
    signature = {"image": tf.TensorSpec((None, None, None, 2)), "guide": tf.TensorSpec((None, None, None, 3))}
    report = export.export(model, tmp_path / "m.onnx", format="onnx", input_signature=signature, verbose=False)
    assert report.passed
    assert list(report.inputs) == ["image", "guide"] and list(report.outputs) == ["output_0", "output_1"]


def test_sequential_model_and_fixed_size(onnxruntime, tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3), name="photo"), keras.layers.Conv2D(2, 3, name="edges")])
    report = export.export(model, tmp_path / "m.onnx", format="onnx", input_size=(12, 17), verbose=False)
    assert report.inputs == {"photo": ("float32", ["batch", 12, 17, 3])}
    assert report.outputs == {"edges": ("float32", ["batch", 10, 15, 2])}
    assert report.validation.cases == ["1x12x17x3", "2x12x17x3", "5x12x17x3"]


def test_infinite_filter_value_outside_the_image(onnxruntime, tmp_path):
    """A tap outside the image is skipped even if its filter value is infinite. A product with zero would be NaN."""
    model, sample = models.infinite_filter_value()
    report = export.export(
        model, tmp_path / "m.onnx", "onnx", validate=export.Validation(sample_inputs=sample), verbose=False
    )
    assert "1x4x5x1, 1x4x5x9" in report.validation.cases
    (outputs,) = session(onnxruntime, report.path).run(None, sample)
    assert np.isfinite(outputs).all()


def test_excluded_branch_of_where_stays_excluded(onnxruntime, tmp_path):
    """A division by zero that `tf.where` excludes does not make the result NaN."""

    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Guarded(keras.layers.Layer):
        def call(self, x):
            return tf.where(x > 0.0, 1.0 / x, 0.0)

    values = keras.Input((3,), name="values")
    sample = {"values": np.array([[0.0, 2.0, -1.0]], "float32")}
    model = keras.Model(values, Guarded()(values))
    report = export.export(
        model, tmp_path / "m.onnx", "onnx", validate=export.Validation(sample_inputs=sample), verbose=False
    )
    np.testing.assert_array_equal(session(onnxruntime, report.path).run(None, sample)[0], [[0.0, 0.5, 0.0]])


def test_half_precision_in_onnx(onnxruntime, tmp_path):
    image = keras.Input((None, None, 4), name="image")
    filters = keras.layers.Conv2D(9, 3, padding="same", dtype="mixed_float16")(image)
    layer = models.Apply("local_filter2d", {"kernel_size": 3}, dtype="mixed_float16")
    report = export.export(
        keras.Model(image, layer([image, filters])), tmp_path / "m.onnx", format="onnx", verbose=False
    )
    assert report.passed and report.validation.outputs[0].dtype == "float16"
    assert "float16" in report.validation.reason


def test_samples_in_the_structure_of_the_model(onnxruntime, tmp_path):
    rng = np.random.default_rng(3)
    sample = [rng.standard_normal((2, channels, 6, 3)).astype("float32") for channels in (4, 9)]
    options = {"format": "onnx", "validate": export.Validation(sample_inputs=[sample]), "verbose": False}
    report = export.export(models.local_filter_channels_first(), tmp_path / "m.onnx", **options)
    assert report.passed and report.validation.cases[-1] == "2x4x6x3, 2x9x6x3"
    assert report.inputs["image"] == ("float32", ["batch", 4, "image_height", "image_width"])


def test_inputs_with_and_without_a_fixed_batch_size(tmp_path):
    inputs = [keras.Input((3,), batch_size=4, name="fixed"), keras.Input((3,), name="open")]
    report = export.export(keras.Model(inputs, keras.layers.Add()(inputs)), tmp_path / "m", verbose=False)
    assert report.passed and report.validation.cases == ["4x3, 4x3"]


def test_samples_in_bfloat16(tmp_path):
    values = keras.Input((3,), name="values", dtype="bfloat16")
    model = keras.Model(values, keras.layers.Dense(2, dtype="bfloat16")(values))
    samples = [{"values": np.ones((1, 3), "float32")}, {"values": tf.ones((6, 3), tf.bfloat16)}]
    validation = export.Validation(batch_sizes=[2], sample_inputs=samples)
    report = export.export(model, tmp_path / "m", validate=validation, verbose=False)
    assert report.passed and report.validation.cases == ["2x3", "1x3", "6x3"]


def test_model_that_refuses_some_sizes(onnxruntime, tmp_path):
    image = keras.Input((None, None, 2), name="image")
    down = keras.layers.AveragePooling2D(2)(image)
    model = keras.Model(image, keras.layers.Add()([keras.layers.UpSampling2D(2)(down), image]))
    report = export.export(model, tmp_path / "m.onnx", format="onnx", verbose=False)
    assert report.passed and set(report.validation.skipped) == {"2x33x47x2", "5x7x5x2"}
    with pytest.raises(export.ExportError, match="refuses all inputs"):
        export.export(model, tmp_path / "n.onnx", "onnx", validate=export.Validation(image_sizes=[(7, 5)]))
    task = export.Task([(np.ones((1, 7, 5, 2), "float32"), 0.0)], np.subtract)
    with pytest.raises(export.ExportError, match="refuses data of the task: 1x7x5x2"):
        export.export(model, tmp_path / "n.onnx", "onnx", validate=export.Validation(task=task))
    assert not (tmp_path / "n.onnx").exists()


def test_saved_model_runs_without_the_package(python, tmp_path):
    model = models.two_by_name()
    report = export.export(model, tmp_path / "model", verbose=False)
    assert report.passed and report.format == "saved_model" and "saved_model.pb" in report.bytes
    assert list(report.inputs) == ["image", "guide"]
    rng = np.random.default_rng(2)
    inputs = {name: rng.standard_normal((2, 9, 14, c)).astype("float32") for name, c in (("image", 2), ("guide", 3))}
    expected = model(inputs, training=False)
    np.savez(tmp_path / "inputs.npz", **inputs)
    np.savez(tmp_path / "expected.npz", **{name: np.asarray(value) for name, value in expected.items()})
    code = f"""
        import sys
        sys.modules["keras_dynfilter"] = None
        import numpy as np, tensorflow as tf
        serve = tf.saved_model.load({str(tmp_path / "model")!r}).signatures["serving_default"]
        outputs = serve(**{{k: tf.constant(v) for k, v in np.load({str(tmp_path / "inputs.npz")!r}).items()}})
        expected = np.load({str(tmp_path / "expected.npz")!r})
        assert sorted(outputs) == sorted(expected), sorted(outputs)
        for name in expected:
            np.testing.assert_allclose(outputs[name].numpy(), expected[name], rtol=1e-4, atol=1e-6)
    """
    completed = python("-I", "-c", textwrap.dedent(code))
    assert completed.returncode == 0, completed.stderr


def test_native_saved_model(native_library, tmp_path):
    report = export.export(models.local_filter(), tmp_path / "native", ops="native", verbose=False)
    assert report.passed
    assert not all(hasattr(tf.raw_ops, op) for op in report.nodes)


def test_saved_model_replaces_only_a_saved_model(tmp_path):
    model = models.local_filter(size=(8, 8))
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="a SavedModel to replace"):
        export.export(model, tmp_path / "model")
    for _ in range(2):
        report = export.export(model, tmp_path / "new", validate=False, verbose=False)
        assert report.passed is None and "skipped" in str(report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "new"]


def test_report(onnxruntime, tmp_path, capsys):
    report = export.export(models.local_filter(), tmp_path / "m.onnx", format="onnx")
    assert str(report) in capsys.readouterr().out
    report.to_json(tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["passed"] is True and stored["opset"] == 18
    assert stored["bytes"] == {"m.onnx": (tmp_path / "m.onnx").stat().st_size}
    assert {"keras_dynfilter", "python", "keras", "tensorflow", "numpy", "onnx", "tf2onnx"} == set(stored["versions"])
    assert set(stored["seconds"]) == {"trace", "write", "validate"}
    (check,) = stored["validation"]["outputs"]
    assert (
        check["name"] == "filtered" and check["passed"] and 0 <= check["max_rel"] <= stored["validation"]["tolerance"]
    )
    assert check["compared"] == sum(b * h * w * 4 for b, h, w in ((1, 32, 32), (2, 33, 47), (5, 7, 5), (1, 64, 96)))
    assert stored["validation"]["cases"] == ["1x32x32x4", "2x33x47x4", "5x7x5x4", "1x64x96x4"]


def test_import_loads_no_format(python):
    """The packages of a format are imported only when the format is written."""
    packages = {name for row in export.FORMATS.values() for name in row.modules}
    code = f"import sys; from keras_dynfilter import export; print(sorted({packages} & set(sys.modules)))"
    completed = python("-c", code)
    assert packages and completed.stdout.strip() == "[]", completed.stderr


def test_plain_model_needs_no_library(onnxruntime, monkeypatch, tmp_path):
    """The library of ops is neither compiled nor loaded for a model without dynamic filters."""
    monkeypatch.setattr(library, "_loaded", None)
    monkeypatch.setattr(library, "load", lambda: pytest.fail("loaded the native library"))
    values = keras.Input((3,), name="values")
    model = keras.Model(values, keras.layers.Dense(2)(values))
    report = export.export(model, tmp_path / "m.onnx", format="onnx", verbose=False)
    assert report.passed and "no native ops" in report.validation.reference


def test_reference_is_native(native_library, onnxruntime, tmp_path):
    report = export.export(models.depthwise(), tmp_path / "m.onnx", format="onnx", verbose=False)
    assert report.passed and "eager, native ops" in report.validation.reference
    with implementation("composite"):
        report = export.export(models.depthwise(), tmp_path / "m.onnx", format="onnx", verbose=False)
    assert report.passed and "no native ops" in report.validation.reference


def test_documentation_has_the_table():
    page = pathlib.Path(__file__).parents[2] / "docs" / "guide" / "export.md"
    assert export.formats.table() in page.read_text()


def test_saved_model_has_gradients(tmp_path):
    report = export.export(models.ddf_module(), tmp_path / "model", validate=False, verbose=False)
    loaded = tf.saved_model.load(report.path)
    image = tf.random.normal([1, 5, 6, 4])
    with tf.GradientTape() as tape:
        tape.watch(image)
        (outputs,) = loaded.signatures["serving_default"](image=image).values()
    assert np.abs(tape.gradient(outputs, image)).max() > 0
