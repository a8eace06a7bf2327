# SPDX-License-Identifier: Apache-2.0
"""The exported filter repository networks have one convolution for each generated convolution."""

import collections

import keras
import pytest

from keras_dynfilter import export, models
from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D

pytestmark = pytest.mark.legacy

NETWORKS = {
    "digits": lambda: models.repository_mnist(encoder_channels=4, base_filters=3),
    "faces": lambda: models.repository_mtfl(4, base_filters=2, generated={1: 1, 5: 5}),
    "photographs": lambda: models.repository_cifar10(base_filters=2),
    "digits_baseline": models.repository_mnist_baseline,
    "faces_baseline": lambda: models.repository_mtfl_baseline(4),
    "photographs_baseline": models.repository_cifar10_baseline,
}


def all_networks():
    """Builds one model of all networks, so that one export and one validation cover them."""
    inputs, outputs = {}, {}
    for name, make in NETWORKS.items():
        network = make()
        inputs[name] = keras.Input(network.input_shape[1:], name=name)
        results = network(inputs[name])
        for key, value in results.items() if isinstance(results, dict) else [("result", results)]:
            label = f"{name}_{key}"
            outputs[label] = keras.layers.Activation("linear", name=label)(value)
    return keras.Model(inputs, outputs)


@pytest.fixture
def onnx():
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


def count_nodes(onnx, path):
    """Counts the nodes of an ONNX file by type."""
    return collections.Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def convolutions(model):
    """Lists the convolutions of a model and of its nested models."""
    nested = [convolutions(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    classes = keras.layers.Conv2D, UpsamplingConv2D, RepositoryConv2D
    return sum(nested, [layer for layer in model.layers if isinstance(layer, classes)])


@pytest.mark.slow
def test_networks_in_onnx(onnx, tmp_path):
    model = all_networks()
    report = export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False)
    assert report.passed and not report.validation.skipped
    layers = convolutions(model)
    assert sum(isinstance(layer, RepositoryConv2D) for layer in layers) == 2 + 2 + 4
    # The export of a generated convolution is one convolution with the base filters, which all samples share.
    assert count_nodes(onnx, report.path)["Conv"] == len(layers)
    assert {opset.domain for opset in onnx.load(str(report.path)).opset_import} <= {"", "ai.onnx", "ai.onnx.ml"}


@pytest.mark.slow
def test_networks_in_saved_model(tmp_path):
    assert export.export(all_networks(), tmp_path / "model", format="saved_model", verbose=False).passed


def test_per_sample_algorithm_in_onnx(onnx, tmp_path):
    image, features = keras.Input((None, None, 2), name="image"), keras.Input((3,), name="features")
    model = keras.Model([image, features], RepositoryConv2D(4, 3, strides=2, algorithm="per_sample")([image, features]))
    report = export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False)
    assert report.passed and count_nodes(onnx, report.path)["Conv"] == 0


def test_many_base_filters_and_unknown_sizes_in_onnx(onnx, tmp_path):
    image, features = keras.Input((None, None, 2), name="image"), keras.Input((3,), name="features")
    outputs = RepositoryConv2D(4, 3, 20, strides=2, use_bias=True, dynamic_bias="after")([image, features])
    model = keras.Model({"image": image, "features": features}, outputs)
    report = export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False)
    nodes = count_nodes(onnx, report.path)
    assert report.passed and nodes["Conv"] == 1 and not any(nodes[op] for op in ("Loop", "Scan", "If"))
