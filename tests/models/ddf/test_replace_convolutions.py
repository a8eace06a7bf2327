# SPDX-License-Identifier: Apache-2.0
"""`replace_convolutions` replaces the convolutions that DDF can replace, and keeps everything else unchanged."""

import doctest
import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import inspection
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models import replace_convolutions

pytestmark = pytest.mark.legacy
layers = keras.layers


def normal(*shape):
    return np.random.default_rng(6).standard_normal(shape).astype("float32")


def model_of(*chain, shape=(9, 10, 4)):
    inputs = outputs = keras.Input(shape, name="images")
    for layer in chain:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    for weight in model.weights:  # unlike the zeros and ones of new layers: a weight that is not copied differs
        weight.assign(tf.random.uniform(tuple(weight.shape), 0.1, 1.0))
    return model


def compare_weights(model, copy, replaced):
    """Checks that `copy` has the weights of `model`, except the kernels of the `replaced` convolutions."""
    pairs = [(old, new) for old, new in zip(model.layers, copy.layers) if not isinstance(old, layers.InputLayer)]
    assert len(copy.layers) == len(model.layers) and all(old.name == new.name for old, new in pairs)
    for old, new in pairs:
        assert old is not new
        if old.name not in replaced:
            assert len(old.get_weights()) == len(new.get_weights())
            for expected, weight in zip(old.get_weights(), new.get_weights()):
                np.testing.assert_array_equal(weight, expected, err_msg=old.name)
        elif getattr(old, "use_bias", False):
            np.testing.assert_array_equal(old.bias, new.bias, err_msg=old.name)


def test_the_copy_computes_what_its_layers_compute():
    model = model_of(
        layers.Conv2D(8, 3, padding="same", name="widens"),
        layers.BatchNormalization(name="norm"),
        layers.Conv2D(8, (3, 5), 2, "same", use_bias=False, name="strided"),
        layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="tanh", name="biased"),
        layers.Conv2D(8, 1, name="pointwise"),
    )
    options = dict(squeeze_ratio=0.5, combine="add", heads=2, channel_norm="sigmoid")
    copy, report = replace_convolutions(model, **options)
    assert report.replaced == ("strided", "biased")
    assert report.kept == {"widens": "it has 4 channels in and 8 out"}
    assert "replaced 2 convolutions, kept 1" in str(report) and "widens: kept, it has 4 channels" in str(report)
    compare_weights(model, copy, report.replaced)
    assert tuple(copy.output_shape) == tuple(model.output_shape)

    strided, biased = copy.get_layer("strided"), copy.get_layer("biased")
    assert type(strided) is type(biased) is DDF2D
    assert (strided.kernel_size, strided.strides, biased.dilation_rate) == ((3, 5), (2, 2), (2, 2))
    for layer in (strided, biased):
        assert {name: layer.get_config()[name] for name in options} == options
    images = normal(2, 9, 10, 4)
    features = strided(model.get_layer("norm")(model.get_layer("widens")(images)))
    plain = DDF2D(3, dilation_rate=2, **options)
    plain.build(features.shape)
    without_bias = [weight for weight in biased.weights if weight is not biased.bias]
    plain.set_weights([weight.numpy() for weight in without_bias])
    features = np.tanh(plain(features) + np.asarray(model.get_layer("biased").bias))
    np.testing.assert_allclose(copy(images), model.get_layer("pointwise")(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("window, strides, dilation", [((3, 3), 2, 1), ((5, 3), 1, 2), ((1, 7), 2, 1)])
def test_padding_before_a_valid_convolution(window, strides, dilation, size):
    pixels = tuple((extent // 2) * dilation for extent in window)
    model = model_of(
        layers.ZeroPadding2D(pixels, name="pad"),
        layers.Conv2D(4, window, strides, dilation_rate=dilation, use_bias=False, name="window"),
        shape=(size, 10, 4),
    )
    copy, report = replace_convolutions(model)
    assert report.replaced == ("window",) and report.kept == {}
    assert tuple(copy.output_shape) == tuple(model.output_shape)
    images = normal(2, size, 10, 4)
    np.testing.assert_array_equal(copy(images), copy.get_layer("window")(images))


@pytest.mark.parametrize("size, window, strides", [(8, 3, 2), (8, 5, 2), (9, 3, 3)])
def test_one_sided_padding_before_strides(size, window, strides):
    """Networks for phones pad one pixel less at the top and left, so that sizes agree with padding "same"."""
    half = window // 2
    model = model_of(
        layers.ZeroPadding2D(((half - 1, half), (half - 1, half)), name="pad"),
        layers.DepthwiseConv2D(window, strides, name="window"),
        shape=(size, size, 4),
    )
    copy, report = replace_convolutions(model)
    assert report.replaced == ("window",) and report.kept == {}
    assert tuple(copy.output_shape) == tuple(model.output_shape)
    assert tuple(copy(normal(2, size, size, 4)).shape[1:]) == tuple(model.output_shape[1:])


VALID = "it has padding 'valid' and no ZeroPadding2D of its size before it"
PADDINGS = {
    "none": ([layers.ReLU()], VALID),
    "wide": ([layers.ZeroPadding2D(2)], VALID),
    "one-sided": ([layers.ZeroPadding2D(((0, 1), (0, 1)))], VALID),
    "not before": ([layers.ZeroPadding2D(1), layers.ReLU()], VALID),
}


@pytest.mark.parametrize("before, reason", PADDINGS.values(), ids=PADDINGS)
def test_other_padding_is_kept(before, reason):
    model = model_of(
        *before,
        layers.Conv2D(4, 3, strides=2, name="window"),
        layers.Conv2D(4, 3, padding="same", name="other"),
    )
    copy, report = replace_convolutions(model)
    assert report.kept == {"window": reason}
    compare_weights(model, copy, report.replaced)
    cut = keras.Model(model.input, model.get_layer("window").output)
    cut_copy = keras.Model(copy.input, copy.get_layer("window").output)
    images = normal(2, 9, 10, 4)
    np.testing.assert_array_equal(cut(images), cut_copy(images))


def padded(users, shared_output=False):
    """Builds a model with a padding layer before all `users`, and one more convolution that can be replaced."""
    inputs = keras.Input((8, 8, 4))
    pad = layers.ZeroPadding2D(1, name="pad")(inputs)
    ends = [user(pad) for user in users] + [layers.Conv2D(4, 3, padding="same", name="same")(inputs)]
    return keras.Model(inputs, ends + [pad] * shared_output)


def test_shared_padding():
    def window(name, filters=4):
        return layers.Conv2D(filters, 3, name=name)

    report = replace_convolutions(padded([window("a"), window("b")]))[1]
    assert report.replaced == ("a", "b", "same")

    elsewhere = "its padding layer 'pad' is used elsewhere"
    padding_more = layers.Conv2D(4, 3, padding="same", name="padding_more")
    for users in ([window("a"), layers.ReLU()], [layers.ReLU(), window("a")], [window("a"), padding_more]):
        copy, report = replace_convolutions(padded(users))
        assert report.kept == {"a": elsewhere} and tuple(copy.get_layer("pad").output.shape)[1:3] == (10, 10)
    widening = {"wide": "it has 4 channels in and 6 out", "a": elsewhere, "b": elsewhere}
    report = replace_convolutions(padded([window("a"), window("wide", 6), window("b")]))[1]
    assert report.kept == widening and report.replaced == ("same",)
    report = replace_convolutions(padded([window("a")], shared_output=True))[1]
    assert report.kept == {"a": elsewhere}
    report = replace_convolutions(padded([window("a"), window("b")]), lambda layer: layer.name != "b")[1]
    assert report.kept == {"a": elsewhere, "b": "it was not selected"}


def test_a_convolution_that_is_kept_keeps_its_padding_for_others():
    inputs = keras.Input((8, 8, 4))
    pad = layers.ZeroPadding2D(1, name="pad")(inputs)
    twice = layers.Conv2D(4, 3, name="twice")  # called on padded images and on images without padding
    ends = [layers.Conv2D(4, 3, name="first")(pad), twice(pad), twice(inputs)]
    same = layers.Conv2D(4, 3, padding="same", name="same")(inputs)
    report = replace_convolutions(keras.Model(inputs, [*ends, same]))[1]
    assert report.replaced == ("same",)
    assert report.kept == {"first": "its padding layer 'pad' is used elsewhere", "twice": VALID}


def test_convolutions_that_are_kept():
    class Subclass(layers.Conv2D):
        pass

    model = model_of(
        layers.Conv2D(4, 2, padding="same", name="even"),
        layers.Conv2D(4, 3, padding="same", groups=2, name="groups"),
        layers.DepthwiseConv2D(2, padding="same", name="even_depthwise"),
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="multiplied"),
        layers.SeparableConv2D(4, 3, padding="same", name="separable"),
        layers.Conv2DTranspose(4, 3, padding="same", name="transposed"),
        Subclass(4, 3, padding="same", name="subclass"),
        layers.Conv2D(4, 3, padding="same", name="plain"),
    )
    copy, report = replace_convolutions(model)
    assert report.replaced == ("plain",)
    assert report.kept == {
        "even": "its window (2, 2) is even",
        "groups": "it has 2 groups of 2 channels",
        "even_depthwise": "its window (2, 2) is even",
        "multiplied": "its depth multiplier is 2",
        "separable": "it is a SeparableConv2D, not a Conv2D or DepthwiseConv2D",
        "transposed": "it is a Conv2DTranspose, not a Conv2D or DepthwiseConv2D",
        "subclass": "it is a Subclass, not a Conv2D or DepthwiseConv2D",
    }
    compare_weights(model, copy, report.replaced)
    with pytest.raises(
        ValueError, match=r"(?s)Expected `model` to have a convolution that DDF can.*even: kept, its win"
    ):
        replace_convolutions(model, select=lambda layer: False)


def test_models_that_have_no_graph():
    for model in (None, keras.Sequential([layers.Conv2D(4, 3)])):
        with pytest.raises(ValueError, match=r"Expected `model` to be a functional or sequential keras.Model"):
            replace_convolutions(model)


def test_bad_arguments():
    model = model_of(layers.Conv2D(4, 3, padding="same"))
    for select in (3, "window", [3]):
        with pytest.raises(ValueError, match=r"Expected `select` to be callable with a convolution, a collection .*"):
            replace_convolutions(model, select=select)
    values = {
        "activation": None,
        "bias_regularizer": None,
        "data_format": None,
        "dilation_rate": 1,
        "dtype": "float32",
        "generator_regularizer": None,
        "kernel_size": 3,
        "name": "ddf",
        "strides": 1,
        "use_bias": True,
    }
    for name, value in values.items():
        message = rf"Expected `arguments` without {', '.join(values)}: they come from .* Received: {name}$"
        with pytest.raises(ValueError, match=message):
            replace_convolutions(model, **{name: value})


def test_depthwise_convolutions():
    """Depth-wise convolutions are replaced, also those that are written as a convolution with a group per channel."""
    model = model_of(
        layers.DepthwiseConv2D(3, 2, "same", depthwise_regularizer="l2", activation="tanh", name="depthwise"),
        layers.Conv2D(4, 7, padding="same", groups=4, name="grouped"),
    )
    copy, report = replace_convolutions(model)
    assert report.replaced == ("depthwise", "grouped") and report.kept == {}
    compare_weights(model, copy, report.replaced)
    layer = copy.get_layer("depthwise")
    assert layer.strides == (2, 2) and layer.activation is keras.activations.tanh
    assert layer.generator_regularizer is not None
    assert tuple(copy(normal(2, 9, 10, 4)).shape) == (2, 5, 5, 4)


def test_selection_by_name():
    nested = model_of(layers.Conv2D(4, 3, padding="same", name="a"), layers.Conv2D(4, 3, padding="same", name="b"))
    nested = keras.Model(nested.input, nested.output, name="nested")
    inputs = keras.Input((9, 10, 4))
    model = keras.Model(inputs, layers.Conv2D(4, 3, padding="same", name="a")(nested(inputs)))
    copy, report = replace_convolutions(model, ["nested/a"])
    assert report.replaced == ("nested/a",)
    assert report.kept == {"a": "it was not selected", "nested/b": "it was not selected"}
    assert type(copy.get_layer("nested").get_layer("a")) is DDF2D
    with pytest.raises(ValueError, match=r"Expected `select` to name k x k convolutions .* Received: \['c'\]"):
        replace_convolutions(model, {"a", "c"})


def test_shared_layers_and_operations():
    inputs = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    model = keras.Model(inputs, shared(shared(inputs)) + 1.0)
    copy, report = replace_convolutions(model)
    assert report.replaced == ("shared",)
    layer, images = copy.get_layer("shared"), normal(2, 8, 8, 4)
    np.testing.assert_allclose(copy(images), layer(layer(images)) + 1.0, rtol=1e-5, atol=1e-5)


def test_nested_models():
    sequence = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.ZeroPadding2D(1, name="pad"),
            layers.Conv2D(4, 3, 2, name="window"),
            layers.BatchNormalization(name="norm"),
        ],
        name="sequence",
    )
    backbone = model_of(layers.Conv2D(4, 3, padding="same", name="window"), layers.Dense(4), sequence, shape=(8, 8, 4))
    backbone = keras.Model(backbone.input, backbone.output, name="backbone")
    inputs = keras.Input((8, 8, 4))
    features = backbone(inputs, training=False)
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="head")(features))
    copy, report = replace_convolutions(model)
    assert set(report.replaced) == {"backbone/window", "backbone/sequence/window"}
    assert report.kept == {"head": "it has 4 channels in and 2 out"}
    assert tuple(copy.output_shape) == tuple(model.output_shape)
    compare_weights(backbone, copy.get_layer("backbone"), {"window", "sequence"})
    compare_weights(sequence, copy.get_layer("backbone").get_layer("sequence"), {"window"})
    images = normal(2, 8, 8, 4)
    inner = copy.get_layer("backbone")
    np.testing.assert_allclose(copy(images), copy.get_layer("head")(inner(images, training=False)), atol=1e-5)


def test_preprocessing_layers_keep_their_statistics():
    normalization = layers.Normalization(name="normalize")
    normalization.adapt(3 + 5 * normal(20, 8, 8, 4))
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.Conv2D(4, 3, padding="same")(normalization(inputs)))
    copy, _ = replace_convolutions(model)
    images = normal(2, 8, 8, 4)
    normalized = copy.get_layer("normalize")(images)
    np.testing.assert_array_equal(normalized, normalization(images))
    assert np.abs(normalized - images).max() > 0.5


def test_frozen_and_typed_layers():
    half = layers.Conv2D(4, 3, padding="same", dtype="mixed_float16", kernel_regularizer="l2", name="half")
    model = model_of(half, layers.Dense(4, name="dense"))
    model.trainable = False
    copy, _ = replace_convolutions(model)
    layer = copy.get_layer("half")
    assert layer.compute_dtype == "float16" and layer.generator_regularizer is not None
    assert layer.trainable and not copy.get_layer("dense").trainable
    assert layer(normal(1, 4, 4, 4)).dtype == "float16"


def test_replacing_again_saving_and_loading(tmp_path, python):
    """A second call keeps the layers that were replaced, and a process that imports the package loads the result."""
    model = model_of(layers.Conv2D(4, 3, padding="same", name="a"), layers.Conv2D(4, 3, padding="same", name="b"))
    first, report = replace_convolutions(model, lambda layer: layer.name == "a")
    assert report.kept == {"b": "it was not selected"}
    second, report = replace_convolutions(first)
    assert report.replaced == ("b",) and report.kept == {}
    compare_weights(first, second, report.replaced)
    images = normal(2, 9, 10, 4)
    second.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(images), second(images), atol=1e-5)
    code = f"import keras, keras_dynfilter; keras.models.load_model({str(tmp_path / 'model.keras')!r})"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_resnet50_of_keras():
    """The result has the parameters of `ddf_resnet50`, plus biases before each normalisation."""
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    copy, report = replace_convolutions(model)
    assert len(report.replaced) == 16 and list(report.kept) == ["conv1_conv"]
    biases = sum(math.prod(layer.bias.shape) for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert inspection.count_parameters(copy) == 16_843_748 + biases
    compare_weights(model, copy, report.replaced)
    assert inspection.count_flops(copy) < 0.6 * inspection.count_flops(model)
    probabilities = copy(normal(1, 32, 32, 3))
    np.testing.assert_allclose(np.sum(probabilities), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_resnet50v2_of_keras():
    """A padding layer precedes each of its strided convolutions."""
    model = keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3), include_top=False)
    copy, report = replace_convolutions(model)
    assert len(report.replaced) == 16 and list(report.kept) == ["conv1_conv"]
    assert tuple(copy.output_shape) == tuple(model.output_shape) == (None, 2, 2, 2048)
    strides = [copy.get_layer(name).strides for name in report.replaced]
    assert strides.count((2, 2)) == 3
    compare_weights(model, copy, report.replaced)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, replaced", [("MobileNetV2", 17), ("MobileNetV3Small", 11), ("EfficientNetV2B0", 16), ("ConvNeXtTiny", 18)]
)
def test_networks_with_depthwise_convolutions(name, replaced):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), include_top=False)
    copy, report = replace_convolutions(model)
    assert len(report.replaced) == replaced, str(report)
    assert tuple(copy.output_shape) == tuple(model.output_shape)
    compare_weights(model, copy, report.replaced)
    assert np.all(np.isfinite(copy(normal(1, 64, 64, 3))))


@pytest.mark.slow
def test_a_network_whose_convolutions_all_change_the_channels():
    model = keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), include_top=False)
    with pytest.raises(ValueError, match=r"(?s)convolution that DDF can replace.*it has 128 channels in and 32 out"):
        replace_convolutions(model)


def test_docstring_example():
    module = importlib.import_module(replace_convolutions.__module__)
    assert doctest.testmod(module, extraglobs=dict(keras=keras), raise_on_error=True).attempted == 3
