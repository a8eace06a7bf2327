# SPDX-License-Identifier: Apache-2.0
"""ResNets with DDF have the parameters, structure, padding and initial values of the paper."""

import doctest
import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export, models
from keras_dynfilter.inspection import count_parameters
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models import resnet
from keras_dynfilter.models.ddf.resnet import DEPTHS

pytestmark = pytest.mark.legacy
SMALL = dict(blocks=(1, 2), input_shape=(9, 10, 3), classes=5, width=8, stem="cifar")


def small(**arguments):
    return resnet(**{**SMALL, "convolution": models.ddf_convolution(), **arguments})


def with_active_blocks(model):
    """Sets random scales, also where they start at 0, so that no block equals its shortcut. Returns the model."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(tf.random.uniform(layer.gamma.shape, 0.5, 1.5))
    return model


def images_for(model, batch=2):
    return np.random.default_rng(4).standard_normal((batch, *model.input_shape[1:])).astype("float32")


NETWORKS = [
    (models.ddf_resnet50, dict(squeeze_ratio=0.4, combine="add"), 19_352_663),
    (models.ddf_resnet18, dict(), 4_272_406),
    (models.ddf_resnet18, dict(squeeze_ratio=0.5), 7_691_032),
    (models.ddf_resnet18_baseline, dict(), 11_689_512),
    (models.ddf_resnet50_baseline, dict(), 25_557_032),
]
OTHER_NETWORKS = [  # the structure test counts the parameters of ddf_resnet50 as well
    (models.ddf_resnet50, dict(squeeze_ratio=0.2), 16_843_748),
    (models.ddf_resnet50, dict(squeeze_ratio=0.3), 18_091_484),
    (models.ddf_resnet101, dict(), 28_146_912),
    (models.ddf_resnet152, dict(), 37_462_900),
    (models.ddf_resnet101_baseline, dict(), 44_549_160),
    (models.ddf_resnet152_baseline, dict(), 60_192_808),
]


@pytest.mark.parametrize(
    "network, arguments, parameters",
    [*NETWORKS, *(pytest.param(*network, marks=pytest.mark.slow) for network in OTHER_NETWORKS)],
)
def test_number_of_parameters(network, arguments, parameters):
    model = network((None, None, 3), **arguments)
    assert count_parameters(model) == parameters
    assert model.name == network.__name__
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    moving_averages = 2 * sum(layer.gamma.shape[0] for layer in norms)
    assert model.count_params() == parameters + moving_averages


def test_structure():
    model = models.ddf_resnet50((64, 64, 3))
    windows = [layer for layer in model.layers if isinstance(layer, DDF2D)]
    assert [layer.strides[0] for layer in windows] == [1, 1, 1] + [2, 1, 1, 1] + [2, 1, 1, 1, 1, 1] + [2, 1, 1]
    assert {layer.kernel_size for layer in windows} == {(3, 3)}
    assert {layer.generator.spatial_norm.gain for layer in windows} == {"relu"}
    scales = sum(layer.generator.channel_branches[0].norm.count_params() for layer in windows)
    # The paper prints 16.8M, which is correct with and without the scales of the filter normalisation.
    assert (scales, count_parameters(model) - scales) == (33_984, 16_809_764)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.name for layer in convolutions if tuple(layer.kernel_size) != (1, 1)] == ["stem"]
    shortcuts = [layer for layer in convolutions if layer.name.endswith("shortcut")]
    assert [tuple(layer.strides) for layer in shortcuts] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    others = [layer for layer in convolutions if layer not in shortcuts and layer.name != "stem"]
    assert len(others) == 2 * 16 and {tuple(layer.strides) for layer in others} == {(1, 1)}
    assert not any(layer.use_bias for layer in convolutions)
    sizes = [tuple(model.get_layer(f"stage{stage}_block1_relu").output.shape)[1:] for stage in (1, 2, 3, 4)]
    assert sizes == [(16, 16, 256), (8, 8, 512), (4, 4, 1024), (2, 2, 2048)]


def test_blocks_of_resnet18():
    model = models.ddf_resnet18((64, 64, 3))
    windows = [layer for layer in model.layers if isinstance(layer, DDF2D)]
    channels = [layer.input.shape[-1] for layer in windows]
    assert channels == [64] * 4 + [64, 128, 128, 128] + [128, 256, 256, 256] + [256, 512, 512, 512]
    assert [layer.name for layer in windows if layer.strides == (2, 2)] == [
        f"stage{stage}_block1_window1" for stage in (2, 3, 4)
    ]
    pointwise = [layer for layer in model.layers if layer.name.endswith("pointwise")]
    assert [layer.filters for layer in pointwise] == [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4


def test_baselines_differ_only_in_the_3x3_convolutions():
    def others(model):
        return {
            layer.name: [tuple(weight.shape) for weight in layer.weights]
            for layer in model.layers
            if not layer.name.endswith(("window", "window_pad"))
        }

    ddf, baseline = small(), small(convolution=None)
    assert others(ddf) == others(baseline) and len(others(ddf)) > 20
    windows = [layer for layer in baseline.layers if layer.name.endswith("window")]
    assert [tuple(layer.kernel.shape) for layer in windows] == [(3, 3, 8, 8)] + [(3, 3, 16, 16)] * 2


@pytest.mark.parametrize("size", [12, 13])
def test_padding_is_symmetric(size):
    model = with_active_blocks(models.resnet((1, 1), input_shape=(size, size, 3), width=4, classes=3))
    images = images_for(model)
    names = ["stem", "stem_relu", "stem_pool", "stage2_block1_reduce_relu", "stage2_block1_window"]
    outputs = dict(zip(names, keras.Model(model.input, [model.get_layer(name).output for name in names])(images)))

    def convolved(inputs, name, pixels):
        padding = [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]]
        return tf.nn.conv2d(inputs, tf.convert_to_tensor(model.get_layer(name).kernel), 2, padding)

    np.testing.assert_allclose(outputs["stem"], convolved(images, "stem", 3), atol=1e-5)
    pooled = tf.pad(outputs["stem_relu"], [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    np.testing.assert_array_equal(outputs["stem_pool"], tf.nn.max_pool2d(pooled, 3, 2, "VALID"))
    window = convolved(outputs["stage2_block1_reduce_relu"], "stage2_block1_window", 1)
    np.testing.assert_allclose(outputs["stage2_block1_window"], window, atol=1e-5)


def test_initial_values():
    model = resnet((1, 1), convolution=models.ddf_convolution(), input_shape=(16, 16, 3), width=32, classes=1000)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel)
            fan_out = kernel.shape[0] * kernel.shape[1] * kernel.shape[3]
            np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.1, err_msg=layer.name)
            assert np.abs(kernel).max() > 2.5 * kernel.std(), f"{layer.name} is truncated"
        if isinstance(layer, keras.layers.BatchNormalization):
            scale = 0.0 if layer.name.endswith("expand_bn") else 1.0
            np.testing.assert_array_equal(layer.gamma, np.full(layer.gamma.shape, scale), err_msg=layer.name)
            assert layer.momentum == 0.9 and layer.epsilon == 1e-5
    limit = 1 / np.sqrt(256)
    for values in map(np.asarray, model.get_layer("predictions").weights):
        assert np.abs(values).max() <= limit
        np.testing.assert_allclose(values.std(), limit / np.sqrt(3), rtol=0.1)


def test_a_block_starts_as_its_shortcut():
    model = small()
    images = images_for(model)
    before = model(images)
    model.get_layer("stage2_block2_window").set_weights(
        [weight + 1 for weight in model.get_layer("stage2_block2_window").get_weights()]
    )
    np.testing.assert_array_equal(model(images), before)


@pytest.mark.parametrize(
    "output_stride, size, strides, dilations",
    [
        (None, 1, [2, 1, 2, 1, 2, 1], [1, 1, 1, 1, 1, 1]),
        (16, 2, [2, 1, 2, 1, 1, 1], [1, 1, 1, 1, 1, 2]),
        (8, 4, [2, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 4]),
    ],
)
@pytest.mark.parametrize("ddf", [True, False], ids=["ddf", "baseline"])
def test_output_stride(output_stride, size, strides, dilations, ddf):
    """The first block of a dilated stage has the dilation of the previous stage."""
    convolution = models.ddf_convolution() if ddf else None
    model = resnet(
        (1, 2, 2, 2), "bottleneck", convolution, (32, 32, 3), width=4, output_stride=output_stride, include_top=False
    )
    assert tuple(model.output_shape) == (None, size, size, 128)
    windows = [layer for layer in model.layers if layer.name.endswith("window")][1:]
    assert [layer.strides[0] for layer in windows] == strides
    assert [layer.dilation_rate[0] for layer in windows] == dilations


def test_outputs_with_and_without_the_top():
    assert tuple(small(include_top=False).output_shape) == (None, 5, 5, 64)
    assert tuple(small(include_top=False, input_shape=(None, None, 1)).output_shape) == (None, None, None, 64)
    features = small(include_top=False)
    images = images_for(features)
    for pooling, reduced in (("avg", np.mean), ("max", np.max)):
        pooled = small(include_top=False, pooling=pooling)
        pooled.set_weights(features.get_weights())
        np.testing.assert_allclose(pooled(images), reduced(features(images), axis=(1, 2)), atol=1e-5)
    probabilities, logits = small(), small(classifier_activation=None)
    logits.set_weights(probabilities.get_weights())
    assert tuple(probabilities.output_shape) == (None, 5)
    np.testing.assert_allclose(probabilities(images), tf.nn.softmax(logits(images)), rtol=1e-5, atol=1e-6)


VARIANTS = {
    "add": dict(combine="add", heads=2),
    "channel": dict(branches="channel"),
    "spatial": dict(branches="spatial"),
    "batch": dict(spatial_norm="batch", channel_norm="batch"),
}


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_arguments_reach_the_layers(arguments):
    model = models.ddf_resnet18((8, 8, 3), 3, 0.5, width=8, stem="cifar", include_top=False, **arguments)
    layers = [layer for layer in model.layers if isinstance(layer, DDF2D)]
    assert len(layers) == 16 and {layer.squeeze_ratio for layer in layers} == {0.5}
    for layer in layers:
        config = layer.get_config()
        assert {name: config[name] for name in arguments} == arguments


@pytest.mark.parametrize("arguments", [dict(), dict(combine="add")], ids=["mul", "add"])
@pytest.mark.parametrize("block", ["bottleneck", "basic"])
def test_every_weight_gets_a_gradient(block, arguments):
    convolution = models.ddf_convolution(pointwise=block == "basic", squeeze_ratio=1, **arguments)
    model = with_active_blocks(resnet(**{**SMALL, "block": block, "convolution": convolution}))
    images = images_for(model, batch=4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.math.log(model(images, training=True)[:, 0]))
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights)):
        assert gradient is not None and np.all(np.isfinite(gradient)), weight.name
        assert np.abs(gradient).max() > 0, weight.name


def test_save_and_load(tmp_path):
    model = with_active_blocks(small())
    images = images_for(model)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(images), model(images), atol=1e-6)


@pytest.mark.parametrize("format", ["saved_model", "onnx"])
def test_export(format, tmp_path, monkeypatch):
    """One block of the network halves the maps and has a convolution in its shortcut."""
    if format == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    monkeypatch.setitem(DEPTHS, 18, dict(blocks=(1, 1), block="basic"))
    model = with_active_blocks(models.ddf_resnet18((32, 32, 3), 5, width=8, stem="cifar"))
    path = tmp_path / ("model.onnx" if format == "onnx" else "model")
    report = export.export(model, path, format=format, verbose=False)
    assert report.passed and not report.validation.skipped


def test_mixed_precision():
    model = with_active_blocks(small(classifier_activation=None))
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = small(classifier_activation=None)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    half.set_weights(model.get_weights())
    images = images_for(model)
    assert half.get_layer("stage1_block1_window").output.dtype == "float16"
    assert half(images).dtype == "float32"
    np.testing.assert_allclose(half(images), model(images), atol=0.05 * np.std(model(images)))


ERRORS = {
    "block": (dict(block="wide"), "Expected `block` to be one of 'basic', 'bottleneck'.*'wide'"),
    "blocks": (dict(blocks=(1, 0)), r"Expected `blocks` to be positive integers.*\(1, 0\)"),
    "one block": (dict(blocks=3), "Expected `blocks` to be positive integers.*blocks=3"),
    "stem": (dict(stem=None), "Expected `stem` to be one of 'imagenet', 'cifar'.*stem=None"),
    "pooling": (dict(pooling="mean"), "Expected `pooling` to be one of None, 'avg', 'max'.*'mean'"),
    "width": (dict(width=0), "Expected `width` to be a positive integer.*width=0"),
    "classes": (dict(classes=0.5), "Expected `classes` to be a positive integer.*classes=0.5"),
    "shape": (dict(input_shape=(8, 8, None)), r"Expected `input_shape` to be \(height.*\(8, 8, None\)"),
    "rank": (dict(input_shape=(8, 8)), r"Expected `input_shape` to be \(height.*\(8, 8\)"),
    "stride": (
        dict(stem="imagenet", output_stride=2),
        "Expected `output_stride` to be at least 4, that of the stem.*output_stride=2",
    ),
}


@pytest.mark.parametrize("arguments, message", ERRORS.values(), ids=ERRORS)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_docstring_example():
    module = importlib.import_module(models.ddf_resnet50.__module__)
    assert doctest.testmod(module, extraglobs=dict(math=math), raise_on_error=True).attempted == 2
