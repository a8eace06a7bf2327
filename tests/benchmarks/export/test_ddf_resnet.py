# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.ddf_resnet` exports the right networks, and measures and prints the right numbers."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timing
from benchmarks.export import ddf_resnet, runtimes
from keras_dynfilter.models.ddf.resnet import DEPTHS

SMALL = ["--depth", "18", "--size", "12", "--width", "32"]


@pytest.fixture
def shallow(monkeypatch):
    monkeypatch.setitem(DEPTHS, 18, dict(blocks=(1,), block="basic"))


def test_blocks_add_to_their_shortcuts(shallow):
    network = ddf_resnet.networks(ddf_resnet.parse(SMALL))["ddf_resnet18"]
    images = np.random.default_rng(0).standard_normal((1, 12, 12, 3)).astype("float32")
    before = network(images).numpy()
    kernel = network.get_layer("stage1_block1_window2_pointwise").kernel
    kernel.assign(2 * tf.reverse(kernel, [0, 1, 2, 3]))
    assert np.abs(network(images).numpy() - before).max() > 1e-5


def test_table(monkeypatch, tmp_path, capsys, shallow):
    calls, times = [], iter([2.0, 20.0, 8.0, 10.0])
    report = types.SimpleNamespace(to_dict=lambda: {"passed": True})
    monkeypatch.setattr(
        ddf_resnet.export, "export", lambda model, path, **options: calls.append((path, options)) or report
    )
    monkeypatch.setattr(ddf_resnet, "load_call", lambda format, path, images, threads: None)
    monkeypatch.setattr(timing, "median_ms", lambda call, budget: next(times))
    ddf_resnet.main([*SMALL, "--batch-size", "3", "--out", str(tmp_path)])
    names = ("ddf_resnet18", "ddf_resnet18_baseline")
    assert [call[0] for call in calls] == [
        str(tmp_path / f"{name}{suffix}") for name in names for suffix in (".onnx", "_saved_model")
    ]
    assert calls[0][1] == {"format": "onnx", "input_size": (12, 12)}
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["network"] for row in rows] == [*names]
    assert rows[0]["onnx"] == {"ms": 2.0, "report": {"passed": True}} and rows[1]["saved_model"]["ms"] == 10.0
    assert rows[0]["shape"] == [3, 12, 12, 3] and rows[0]["parameters"] < rows[1]["parameters"]
    assert rows[0]["flops"] < rows[1]["flops"]
    out = capsys.readouterr().out
    assert "0.25x" in out and "2.00x" in out


def test_trained_models(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)])
    model.save(tmp_path / "mine.keras")
    networks = ddf_resnet.networks(ddf_resnet.parse(["--model", str(tmp_path / "mine.keras")]))
    assert list(networks) == ["mine"]
    np.testing.assert_array_equal(networks["mine"].get_weights()[0], model.get_weights()[0])


def test_calls_of_files(tmp_path):
    """The measured calls run the file on the images."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    images = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)

    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, images.shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    np.testing.assert_array_equal(runtimes.load_call("onnx", tmp_path / "m.onnx", images, 1)()["y"], -images)

    module = tf.Module()
    module.serve = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None, 2, 2, 3], name="x")])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    np.testing.assert_array_equal(runtimes.load_call("saved_model", tmp_path / "m", images, 0)()["y"], 2 * images)
