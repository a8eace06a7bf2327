# SPDX-License-Identifier: Apache-2.0
"""Tests of LiteRT files: names, sizes, precisions, scores of a task, and models that are refused."""

import importlib.util
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export
from keras_dynfilter import models as networks
from keras_dynfilter.export import cli
from keras_dynfilter.export.writers import litert
from tests.support import export_models as models

pytestmark = pytest.mark.legacy

interpreter = pytest.importorskip("ai_edge_litert.interpreter")


def write(model, path, validate=True, **options):
    if validate is True:
        validate = validation()
    return export.export(model, path, format="litert", validate=validate, verbose=False, **options)


def validation(**options):
    return export.Validation(batch_sizes=(1, 2), image_sizes=((9, 12), (7, 5)), **options)


def small(dtype=None):
    image = keras.Input((8, 8, 2), name="image", dtype=None if dtype is None else "float32")
    filters = keras.layers.Conv2D(9, 3, padding="same", dtype=dtype)(image)
    filtered = models.Apply("local_filter2d", {"kernel_size": 3}, dtype=dtype)([image, filters])
    return keras.Model(image, keras.layers.Dense(3, dtype=dtype, name="scores")(keras.layers.Flatten()(filtered)))


def test_names_and_sizes(tmp_path):
    report = write(models.two_by_name(), tmp_path / "m.tflite")
    assert report.passed and "LiteRT" in report.validation.runtime and report.nodes
    assert not any(name.startswith("custom") for name in report.nodes)
    runner = interpreter.Interpreter(model_path=report.path).get_signature_runner("serving_default")
    shapes = {name: value["shape_signature"].tolist() for name, value in runner.get_input_details().items()}
    assert shapes == {"image": [-1, -1, -1, 2], "guide": [-1, -1, -1, 3]}
    assert set(runner.get_output_details()) == {"filtered", "mean"} == set(report.outputs)


def test_infinite_filter_value_outside_the_image(tmp_path):
    model, sample = models.infinite_filter_value()
    report = write(model, tmp_path / "m.tflite", validation(sample_inputs=sample))
    runner = interpreter.Interpreter(model_path=report.path).get_signature_runner()
    assert report.passed and all(np.isfinite(value).all() for value in runner(**sample).values())


def test_recurrent_network_with_a_fixed_number_of_steps(tmp_path):
    model = networks.dfn_moving_mnist((8, 8, 1), 3, 2, 3, 0.125)
    report = write(model, tmp_path / "m.tflite")
    assert report.passed and [shape for _, shape in report.inputs.values()] == [["batch", 3, 8, 8, 1]]


def test_full_int8_and_the_score_of_a_task(tmp_path):
    model, rng = small(), np.random.default_rng(0)
    batches = [(rng.random((4, 8, 8, 2)).astype("float32"), rng.random((4, 3)).astype("float32")) for _ in range(2)]
    report = write(
        model,
        tmp_path / "m.tflite",
        precision="int8",
        representative_data=(images for images, _ in batches),
        validate=validation(task=export.Task(batches, keras.losses.mean_absolute_error)),
    )
    runner = interpreter.Interpreter(model_path=report.path).get_signature_runner()
    for source, compute in {
        "model": lambda images: model(images, training=False).numpy(),
        "file": lambda images: runner(image=images)["scores"],
    }.items():
        mean = np.mean([np.abs(compute(images) - targets) for images, targets in batches])
        score = report.validation.task.model if source == "model" else report.validation.task.file[""]
        np.testing.assert_allclose(score, mean, rtol=1e-3 if source == "file" else 1e-5)
    assert report.validation.task.samples == 8 and "mean_absolute_error of 8 samples" in str(report)
    assert 0 < report.validation.outputs[0].max_rel < report.validation.tolerance
    assert report.to_dict()["validation"]["task"]["metric"] == "mean_absolute_error"


def test_wrong_file_is_found_and_removed(monkeypatch, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier, good file")
    write(small(), tmp_path / "other.tflite", validate=False)
    content = (tmp_path / "other.tflite").read_bytes()
    monkeypatch.setattr(litert, "_convert", lambda *_: content)
    with pytest.raises(export.ValidationError, match="relative difference above"):
        write(small(), path)
    assert path.read_bytes() == b"an earlier, good file"


def test_ops_that_litert_lacks(tmp_path):
    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class Gamma(keras.layers.Layer):
        def call(self, x):
            return tf.math.igamma(x, x)

    x = keras.Input((3,))
    with pytest.raises(export.ExportError, match=r"ops that LiteRT lacks: .*Igamma"):
        write(keras.Model(x, Gamma()(x)), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_custom_ops_in_the_file_are_refused(monkeypatch, tmp_path):
    """Custom ops are refused even if the converter accepts them."""
    monkeypatch.setattr(litert, "count_operators", lambda content: {"ADD": 2, "custom FlexErf": 1})
    with pytest.raises(export.ExportError, match=r"stock LiteRT lacks: FlexErf \(1\)"):
        write(small(), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_dynamic_rank(tmp_path):
    @keras.saving.register_keras_serializable("keras_dynfilter_tests")
    class AnyRank(keras.Model):
        def call(self, x):
            return tf.abs(x)

    model = AnyRank()
    model(tf.zeros((2, 3)))
    with pytest.raises(export.ExportError, match=r"a known rank. Received: .* of shape <unknown>"):
        write(model, tmp_path / "m.tflite", input_signature=tf.TensorSpec(None, name="x"))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_policies(policy, tmp_path):
    computed = policy.replace("mixed_", "")
    with pytest.raises(export.ExportError, match=f"computes in .*{computed}.*policy float32"):
        write(small(policy), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


IMAGES = np.zeros((1, 8, 8, 2), "float32")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"precision": "int8"}, "Expected `representative_data`.*Received: precision='int8' and no data"),
        ({"representative_data": [IMAGES]}, "Expected `representative_data`.*Received: precision='float32' and some"),
        ({"precision": "int8", "representative_data": []}, "Expected `representative_data` to be inputs, at least one"),
        ({"precision": "int8", "representative_data": [IMAGES[:0]]}, "none empty"),
        ({"precision": "int8", "representative_data": 3}, "Expected `representative_data` to be inputs. Received: int"),
        ({"precision": "int8", "representative_data": [IMAGES[..., :1]]}, "Expected samples of image to have shape"),
        (
            {"precision": "int8", "representative_data": [IMAGES.astype(complex)]},
            r"samples of image to be convertible to a tensor of dtype float32\. Received: ndarray: complex numbers",
        ),
        ({"precision": "int4"}, "Expected `precision` to be one of 'float32', .* Received: precision='int4'.*'int8'"),
        ({"ops": "native"}, "litert does not support native ops"),
        ({"opset": 18}, "litert has no opsets"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(small(), tmp_path / "m.tflite", **options)
    assert not list(tmp_path.iterdir())


def test_precisions_make_files_smaller_and_round(tmp_path):
    values = keras.Input((64,), name="values")
    model = keras.Model(values, keras.layers.Dense(256, name="scores")(values))
    reports = {
        precision: write(model, tmp_path / f"{precision}.tflite", precision=precision)
        for precision in ("float32", "float16", "dynamic_int8")
    }
    (full,) = reports.pop("float32").bytes.values()
    for (name, report), largest_ratio in zip(reports.items(), (0.6, 0.4)):
        (size,), (check,) = report.bytes.values(), report.validation.outputs
        assert size < largest_ratio * full and check.max_rel > 1e-5, name


def test_other_formats_have_no_precision(tmp_path):
    with pytest.raises(ValueError, match="Expected `precision` to be None: saved_model keeps the model's dtypes"):
        export.export(small(), tmp_path / "m", precision="float16")


def test_bad_paths(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="a folder that can be written"):
        write(small(), tmp_path / "file" / "m.tflite")
    with pytest.raises(ValueError, match=r"Expected `path` to be a `\*.tflite` file for litert"):
        write(small(), tmp_path / "m.onnx")


def test_missing_extra(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else find(name))
    with pytest.raises(ImportError, match=r"needs ai_edge_litert.*pip install 'keras_dynfilter\[litert\]'"):
        write(small(), tmp_path / "m.tflite")


def test_command_line(tmp_path, capsys):
    image = keras.Input((8, 8, 2), name="image")
    keras.Model(image, keras.layers.Conv2D(3, 3, name="edges")(image)).save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", image=rng.random((4, 8, 8, 2)).astype("float32"))
    np.save(tmp_path / "images.npy", IMAGES)
    command = [str(tmp_path / "m.keras"), "--format", "litert", "--precision", "int8", "--representative-data"]
    assert cli.main([*command, str(tmp_path / "images.npz")]) == 0
    assert (tmp_path / "m.tflite").is_file() and "litert, portable ops, int8" in capsys.readouterr().out
    for wrong in ("images.npy", "missing.npz"):
        assert cli.main([*command, str(tmp_path / wrong)]) == 2
        assert wrong in capsys.readouterr().err
    assert cli.main(command[:-1]) == 2 and "Expected --representative-data with precision" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arrays, message",
    [
        (None, "to be an .npz file of arrays. Received: "),
        ({}, "with none"),
        ({"image": IMAGES[:0]}, "with image (0, 8, 8, 2)"),
        ({"image": 1.0}, "with image ()"),
        ({"image": np.zeros((4, 8, 8, 2)), "guide": np.zeros((3, 2))}, "with image (4, 8, 8, 2), guide (3, 2)"),
    ],
)
def test_wrong_representative_data(arrays, message, tmp_path, capsys):
    path = tmp_path / "images.npz"
    path.write_bytes(b"") if arrays is None else np.savez(path, **arrays)
    command = ["m.keras", "--format", "litert", "--precision", "int8", "--representative-data", str(path)]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err


def test_representative_data_in_another_archive(tmp_path, capsys):
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    command = ["m.keras", "--format", "litert", "--precision", "int8", "--representative-data", str(path)]
    assert cli.main(command) == 2
    assert f"Expected --representative-data to be an .npz file of arrays. Received: {path}" in capsys.readouterr().err


def test_representative_data_of_a_fixed_batch(tmp_path, capsys):
    """All samples are used, even if the last batch needs samples of the batch before."""
    image = keras.Input((8, 8, 2), 4, name="image")
    model = keras.Model(image, keras.layers.Conv2D(3, 3, name="edges")(image))
    images = np.arange(6 * 128, dtype="float32").reshape(6, 8, 8, 2)
    batches = [batch["image"] for batch in cli._batches({"image": images}, model)]
    np.testing.assert_array_equal(batches, [images[:4], images[2:]])
    model.save(tmp_path / "m.keras")
    command = [str(tmp_path / "m.keras"), "--format", "litert", "--precision", "int8", "--representative-data"]
    for count, status in ((6, 0), (3, 2)):
        np.savez(tmp_path / "images.npz", image=images[:count] / images.max())
        assert cli.main([*command, str(tmp_path / "images.npz")]) == status
    assert "to fill a batch of the model, of 4 samples. Received: 3 samples" in capsys.readouterr().err
