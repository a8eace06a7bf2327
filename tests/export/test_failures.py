# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be exported and wrong files raise an error with the reason, and no file is left."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import export
from keras_dynfilter.export import atomic_write
from keras_dynfilter.export.report import first_line
from keras_dynfilter.export.writers import onnx as onnx_writer
from tests.support import export_models as models

pytestmark = pytest.mark.legacy


@pytest.fixture(scope="module")
def model():
    return models.local_filter(size=(8, 8))


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    return pytest.importorskip("onnx")


def _scaled(onnx, path):
    """Multiplies the weights of a convolution by 1.01."""
    stored = onnx.load(path)
    weights = next(t for t in stored.graph.initializer if len(t.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32(1.01), weights.name))
    onnx.save(stored, path)


def _truncated(onnx, path):
    path.write_bytes(path.read_bytes()[:-100])


def _static(onnx, path):
    """Fixes the batch size."""
    stored = onnx.load(path)
    stored.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(stored, path)


def _renamed(onnx, path):
    """Renames the output."""
    stored = onnx.load(path)
    (output,) = stored.graph.output
    node = next(node for node in stored.graph.node if output.name in node.output)
    node.output[0] = output.name = "other"
    onnx.save(stored, path)


@pytest.mark.parametrize(
    "damage, batch_sizes, problem",
    [
        (_scaled, (1, 2), "relative difference above"),
        (_truncated, (1, 2), "the runtime failed"),
        (_static, (1, 2), "the runtime failed"),
        (_static, (1,), "should have sizes"),  # the file runs, but its batch size is no longer open
        (_renamed, (1, 2), "the file lacks it"),
    ],
)
def test_wrong_file_is_found_and_removed(damage, batch_sizes, problem, onnx, model, monkeypatch, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier, good file")
    write = onnx_writer.write

    def wrong(traced, staged, opset):
        nodes = write(traced, staged, opset)
        damage(onnx, staged)
        return nodes

    monkeypatch.setattr(onnx_writer, "write", wrong)
    with pytest.raises(export.ValidationError, match=problem) as raised:
        export.export(model, path, format="onnx", validate=export.Validation(batch_sizes=batch_sizes))
    report = raised.value.report
    assert report.passed is False and not report.to_dict()["validation"]["passed"]
    assert path.read_bytes() == b"an earlier, good file"
    assert list(tmp_path.iterdir()) == [path]


def test_task_of_a_file_without_an_output(onnx, monkeypatch, tmp_path):
    """The report has the problem of the file and the score of the model, but no score of the file."""
    write = onnx_writer.write
    monkeypatch.setattr(onnx_writer, "write", lambda *args: (write(*args), _renamed(onnx, args[1]))[0])
    data = [(np.ones((2, 8, 8, 4), "float32"), np.zeros((2, 1), "float32"))]
    validation = export.Validation(task=export.Task(data, lambda _, outputs: outputs + 1.0))
    with pytest.raises(export.ValidationError, match="file not computed") as raised:
        export.export(models.local_filter(size=(8, 8)), tmp_path / "m.onnx", format="onnx", validate=validation)
    assert raised.value.report.validation.task.file == {}


@pytest.mark.parametrize("names", [("y",), ("y", "z")])
def test_outputs_for_the_metric(names, onnx, tmp_path):
    """The metric receives a tensor if the model has one output, even in a dict. Otherwise it receives a dict."""
    x, received = keras.Input((3,), name="x"), []

    def metric(targets, outputs):
        received.append(outputs)
        return targets

    model = keras.Model(x, {name: keras.layers.Dense(1, name=name)(x) for name in names})
    task = export.Task([(np.ones((2, 3), "float32"), 1.0)], metric)
    export.export(model, tmp_path / "m.onnx", "onnx", validate=export.Validation(task=task))
    assert len(received) == 2  # outputs of the model and of the file
    for outputs in received:
        assert outputs.shape == (2, 1) if len(names) == 1 else set(outputs) == set(names)


def _raise(*_):
    raise KeyError("a mistake in the metric")


@pytest.mark.parametrize(
    "metric, received",
    [
        (
            _raise,
            r"Expected `metric` _raise to score the batch .*2x8x8x4 of the task\. Received: KeyError: .*mistake",
        ),
        (lambda targets, outputs: tf.reshape(targets, [2, 5]) - outputs, "to score the batch .* Received: Invalid"),
        (lambda *_: None, "Expected `metric` <lambda> to return numbers, .* for the batch .*2x8x8x4 .* Received: None"),
        (lambda *_: "good", "to return numbers, .* Received: 'good'"),
        (lambda *_: "0.5", r"to return numbers, .* Received: '0\.5'"),
        (lambda *_: np.array([]), r"to return numbers, .* Received: array\(\[\], dtype=float64\)"),
        (lambda *_: float("nan"), "to return numbers, none of them NaN, .* Received: nan"),
        (keras.metrics.MeanSquaredError, r"Expected `metric` MeanSquaredError to (score|return numbers)"),
    ],
)
def test_metrics_that_do_not_score(metric, received, model, tmp_path):
    task = export.Task([(np.ones((2, 8, 8, 4), "float32"), np.zeros((2, 1), "float32"))], metric)
    with pytest.raises(export.ExportError, match=received):
        export.export(model, tmp_path / "m", validate=export.Validation(task=task))
    assert not list(tmp_path.iterdir())


def test_metric_that_does_not_score_the_file(model, tmp_path):
    """The metric scores the model, but not the file. The report has the problem."""
    scores = [1.0, float("nan")]
    data = [(np.ones((2, 8, 8, 4), "float32"), 0.0)]
    validation = export.Validation(batch_sizes=(1,), task=export.Task(data, lambda *_: scores.pop(0)))
    with pytest.raises(export.ValidationError, match="to return numbers, none of them NaN") as raised:
        export.export(model, tmp_path / "m", validate=validation)
    assert raised.value.report.validation.task.model == 1.0


@pytest.mark.parametrize(
    "error, line", [(ValueError(), "ValueError"), (ValueError(" \n"), "ValueError"), (ValueError("\na\nb"), "a")]
)
def test_first_line_of_an_error(error, line):
    """The name of the class replaces an empty message."""
    assert first_line(error) == line


def test_tolerance_decides(onnx, model, monkeypatch, tmp_path):
    write = onnx_writer.write
    monkeypatch.setattr(onnx_writer, "write", lambda *args: (write(*args), _scaled(onnx, args[1]))[0])
    report = export.export(
        model, tmp_path / "m.onnx", format="onnx", validate=export.Validation(tolerance=0.1), verbose=False
    )
    assert 1e-3 < report.validation.outputs[0].max_rel < 0.1


@pytest.mark.parametrize("output", [lambda x: x[:, :0], lambda x: x * float("nan")])
def test_output_without_any_finite_value(output, onnx, tmp_path):
    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Vacuous(keras.layers.Layer):
        def call(self, x):
            return output(x)

    x = keras.Input((3,))
    with pytest.raises(export.ValidationError, match="no finite value was compared"):
        export.export(keras.Model(x, [Vacuous()(x), keras.layers.Dense(1)(x)]), tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_op_that_onnx_lacks(onnx, tmp_path):
    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Gamma(keras.layers.Layer):
        def call(self, x):
            return tf.math.igamma(x, x) + tf.math.igamma(x, 2.0 * x)

    x = keras.Input((3,))
    with pytest.raises(export.ExportError, match=r"opset 18 lacks: Igamma \(2, in the layer 'gamma'"):
        export.export(keras.Model(x, Gamma()(x)), tmp_path / "m.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


def test_compiled_op_in_a_portable_file(native_library, tmp_path):
    """A model with a layer that always uses the compiled op is refused."""

    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class AlwaysNative(models.Apply):
        def call(self, inputs):
            with keras_dynfilter.implementation("native"):
                return super().call(inputs)

    image, filters = keras.Input((8, 8, 1)), keras.Input((8, 8, 9))
    layer = AlwaysNative("local_filter2d", {"kernel_size": 3})
    with pytest.raises(export.ExportError, match="stock TensorFlow lacks"):
        export.export(keras.Model([image, filters], layer([image, filters])), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_native_saved_model_without_the_library(native_library, model, python, tmp_path):
    """TensorFlow refuses to load the file and names the missing op."""
    report = export.export(model, tmp_path / "m", ops="native", validate=False, verbose=False)
    assert any(op.startswith("KerasDynfilter>") for op in report.nodes)
    completed = python("-c", f"import tensorflow as tf; tf.saved_model.load({str(tmp_path / 'm')!r})")
    assert completed.returncode == 1, completed.stderr
    assert "Op type not registered 'KerasDynfilter>" in completed.stderr, completed.stderr


def test_unknown_rank(model, tmp_path):
    with pytest.raises(export.ExportError, match=r"known rank\. Received: image of shape <unknown>"):
        export.export(model, tmp_path / "m", input_signature={"image": tf.TensorSpec(None, tf.float32, "image")})

    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Unknown(keras.layers.Layer):
        def call(self, x):
            return tf.raw_ops.PlaceholderWithDefault(input=x, shape=tf.TensorShape(None))

        def compute_output_shape(self, input_shape):
            return input_shape

    x = keras.Input((3,))
    with pytest.raises(export.ExportError, match=r"tensors of known rank\. Received: unknown of unknown rank"):
        export.export(keras.Model(x, Unknown(name="unknown")(x)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_bfloat16(onnx, tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))
    with pytest.raises(export.ExportError, match=r"bfloat16.*float32 or mixed_float16"):
        export.export(model, tmp_path / "m.onnx", format="onnx")


def test_float64_convolution_that_onnxruntime_lacks(onnx, tmp_path):
    x = keras.Input((8, 8, 1), dtype="float64")
    model = keras.Model(x, keras.layers.Conv2D(2, 3, dtype="float64")(x))
    with pytest.raises(export.ValidationError, match="Could not find an implementation for Conv"):
        export.export(model, tmp_path / "m.onnx", format="onnx")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"format": "onxx"}, "Expected `format`.*'saved_model', 'onnx'.*Did you mean 'onnx'"),
        ({"format": "savedmodel"}, "Did you mean 'saved_model'"),
        ({"format": ["onnx"]}, r"Expected `format` to be one of .* Received: format=\['onnx'\]"),
        ({"ops": ["native"]}, r"Expected `ops` to be one of .* Received: ops=\['native'\]"),
        ({"ops": "portabel"}, "Expected `ops`.*Did you mean 'portable'"),
        ({"format": "onnx", "opset": 12}, "Expected `opset` to be one of 15, 16, 17, 18. Received: opset=12"),
        ({"opset": 18}, "saved_model has no opsets"),
        ({"input_size": (4, 4)}, "Expected `input_size` to suit the model's inputs"),
        ({"input_size": (4,)}, "Expected `input_size` to be"),
        ({"input_size": 4}, r"Expected `input_size` to be \(height, width\)\. Received: input_size=4"),
        (
            {"validate": None},
            r"Expected `validate` to be True, False or an export\.Validation. Received: validate=None",
        ),
        ({"validate": {"seed": 1}}, r"Expected `validate` to be True, False or an export\.Validation"),
    ],
)
def test_bad_arguments(options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export(model, tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_sizes": []}, r"Expected `batch_sizes` to be .* Received: batch_sizes=\[\]"),
        ({"batch_sizes": [1, 0]}, "Expected `batch_sizes` to be integers above zero"),
        ({"batch_sizes": 2}, "Expected `batch_sizes` to be integers above zero"),
        ({"image_sizes": ()}, "Expected `image_sizes` to be pairs"),
        ({"image_sizes": (8, 8)}, "Expected `image_sizes` to be pairs"),
        ({"image_sizes": [(8, 0)]}, "Expected `image_sizes` to be pairs"),
        ({"tolerance": "x"}, "Expected `tolerance` to be .* Received: tolerance='x'"),
        ({"tolerance": float("nan")}, "Expected `tolerance` to be .* Received: tolerance=nan"),
        ({"tolerance": -1e-3}, "Expected `tolerance` to be"),
        ({"seed": -1}, "Expected `seed` to be an integer not below zero. Received: seed=-1"),
        ({"task": [(0, 0)]}, r"Expected `task` to be a Task or None. Received: task=\[\(0, 0\)\]"),
    ],
)
def test_bad_settings_of_the_validation(options, message):
    with pytest.raises(ValueError, match=message):
        export.Validation(**options)


@pytest.mark.parametrize(
    "data, metric, message",
    [
        ([], "mean", "Expected `metric` to be a function of targets and outputs, such as .* Received: metric='mean'"),
        ([], keras.metrics.MeanSquaredError(), "Expected `metric` to be a function .* keras.losses.mean_squared_error"),
        (3, np.subtract, r"Expected `data` to be pairs \(inputs, targets\). Received: data of type int"),
    ],
)
def test_bad_tasks(data, metric, message):
    with pytest.raises(ValueError, match=message):
        export.Task(data, metric)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"sample_inputs": {"picture": np.zeros((1, 8, 8, 4))}},
            "Expected samples of `sample_inputs` .* or by name: image. Received: 'picture'",
        ),
        ({"sample_inputs": [[np.zeros((1, 8, 8, 4))] * 2]}, "in the structure of the inputs.* Received: list"),
        ({"sample_inputs": {}}, "Expected samples of `sample_inputs` to have every input. Received none for: image"),
        ({"sample_inputs": {"image": np.zeros((1, 8, 8, 3))}}, "Expected samples of image to have shape"),
        (
            {"task": export.Task([({"x": np.zeros((1, 8, 8, 4))}, 0)], np.subtract)},
            "Expected samples of `task.data` .* Received: 'x'",
        ),
        ({"task": export.Task([], np.subtract)}, "Expected `task.data` to hold at least one pair"),
        ({"task": export.Task([1, 2], np.subtract)}, r"`task.data` to hold pairs \(inputs, targets\)\. Received: int"),
        ({"sample_inputs": [{"image": tf.zeros((1, 8, 8, 4), tf.int32)}]}, "samples of image .* of dtype float32"),
        (
            {"sample_inputs": {"image": np.zeros((1, 8, 8, 4), complex)}},
            r"dtype float32\. Received: .*: complex numbers",
        ),
        ({"task": export.Task([(np.zeros((1, 8, 8, 4)) + 1j, 0)], np.subtract)}, "ndarray: complex numbers"),
    ],
)
def test_inputs_that_do_not_suit_the_model(options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export(model, tmp_path / "m", validate=export.Validation(**options))
    assert not list(tmp_path.iterdir())


def test_bad_models(tmp_path):
    with pytest.raises(ValueError, match=r"Expected `model` to be a keras.Model. Received: Dense"):
        export.export(keras.layers.Dense(1), tmp_path / "m")
    with pytest.raises(ValueError, match="to be built"):
        export.export(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "m")


def test_bad_paths(onnx, model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="a folder that can be written"):
        export.export(model, tmp_path / "file" / "m.onnx", format="onnx")
    with pytest.raises(ValueError, match="for saved_model"):
        export.export(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"Expected `path` to be a `\*.onnx` file for onnx"):
        export.export(model, tmp_path / "m", format="onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ValueError, match="Received a folder"):
        export.export(model, tmp_path / "folder.onnx", format="onnx")


def test_earlier_file_stays_if_it_cannot_be_replaced(monkeypatch, model, tmp_path):
    export.export(model, tmp_path / "m", validate=False, verbose=False)
    before = sorted(tmp_path.rglob("*"))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_write.pathlib.Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        export.export(model, tmp_path / "m", validate=False, verbose=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_extra(model, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    with pytest.raises(ImportError, match=r"needs .*tf2onnx.*pip install 'keras_dynfilter\[export\]'"):
        export.export(model, tmp_path / "m.onnx", format="onnx")
