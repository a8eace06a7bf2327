# SPDX-License-Identifier: Apache-2.0
"""`count_flops` reproduces the numbers of the paper, follows each rule, and reads all types of models with a graph."""

import doctest
import importlib
import math

import keras
import numpy as np
import pytest

from keras_dynfilter import models
from keras_dynfilter.inspection import count_flops, count_parameters
from keras_dynfilter.layers import DDF2D, DDFUp2D, FilterNorm, RepositoryConv2D
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D

pytestmark = pytest.mark.legacy


def model_of(*layers, shape=(6, 8, 4)):
    inputs = outputs = keras.Input(shape)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    "network, squeeze_ratio, operations",
    [
        (models.ddf_resnet50, 0.2, 2_297_525_315),
        pytest.param(models.ddf_resnet50, 0.3, 2_298_772_675, marks=pytest.mark.slow),
        pytest.param(models.ddf_resnet50, 0.4, 2_300_033_475, marks=pytest.mark.slow),
        pytest.param(models.ddf_resnet101, 0.2, 4_079_155_303, marks=pytest.mark.slow),
    ],
)
def test_the_numbers_of_the_paper(network, squeeze_ratio, operations):
    assert count_flops(network(squeeze_ratio=squeeze_ratio)) == operations


@pytest.mark.slow
def test_other_networks():
    """ResNet-50 has the rounded number of the paper; DDF-ResNet18 has 0.37B, and the paper prints 0.4B."""
    assert round(count_flops(models.ddf_resnet50_baseline((None, None, 3)), (224, 224, 3)) / 1e9, 1) == 4.1
    free = dict.fromkeys((keras.layers.BatchNormalization, keras.layers.Add), lambda layer, inputs, output: 0)
    for ratio, billions, without in ((0.2, 0.369, 0.366), (0.5, 0.373, 0.370)):
        network = models.ddf_resnet18(squeeze_ratio=ratio)
        assert round(count_flops(network) / 1e9, 3) == billions
        assert round(count_flops(network, rules=free) / 1e9, 3) == without


@pytest.mark.slow
def test_convolutions_alone():
    """Custom rules can restrict the count to the convolutions, the generators of filters and the classifier."""

    def nothing(layer, inputs, output):
        return 0

    def generators(layer, inputs, output):
        channels, squeezed = output[-1], layer.generator.channel_branches[0].squeeze.units
        return 9 * math.prod(output) + squeezed * channels * (1 + 9)

    others = (keras.layers.BatchNormalization, keras.layers.Add, keras.layers.GlobalAveragePooling2D)
    rules = {DDF2D: generators, **dict.fromkeys(others, nothing)}
    network = models.ddf_resnet50((None, None, 3))
    assert round(count_flops(network, (224, 224, 3), rules) / 1e9, 3) == 2.254


LAYERS = {
    "convolution": (keras.layers.Conv2D(10, (3, 5), strides=2, padding="same"), 15 * 4 * 10 * 3 * 4),
    "groups": (keras.layers.Conv2D(8, 3, groups=2, padding="same"), 9 * 2 * 8 * 48),
    "valid": (keras.layers.Conv2D(4, 3), 9 * 4 * 4 * 4 * 6),
    "transposed": (keras.layers.Conv2DTranspose(5, 3, strides=2), 9 * 4 * 5 * 48),
    "depthwise": (keras.layers.DepthwiseConv2D(3, depth_multiplier=3, padding="same"), 9 * 12 * 48),
    "separable": (
        keras.layers.SeparableConv2D(7, 3, 2, "same", depth_multiplier=2),
        12 * (9 * 8 + 8 * 7),
    ),
    "dense": (keras.layers.Dense(9), 48 * 4 * 9),
    "batch norm": (keras.layers.BatchNormalization(), 192),
    "mean": (keras.layers.GlobalAveragePooling2D(), 192),
    "means": (keras.layers.AveragePooling2D(2), 4 * 48),
    "maximum": (keras.layers.MaxPooling2D(2), 0),
    "activation": (keras.layers.ReLU(), 0),
    "upsampling": (keras.layers.UpSampling2D(), 0),
    "upsampling convolution, 1x1": (UpsamplingConv2D(3, 1), 4 * 3 * 4 * 48),
    "upsampling convolution, 5x5": (UpsamplingConv2D(3, 5), 9 * 4 * 3 * 4 * 48),
    "upsampling convolution, 7x7": (UpsamplingConv2D(3, 7), 25 * 4 * 3 * 4 * 48),
}


@pytest.mark.parametrize("layer, operations", LAYERS.values(), ids=LAYERS)
def test_one_layer(layer, operations):
    assert count_flops(model_of(layer)) == operations


SPATIAL = 12 * 10 * 2 * 9 + 12 * 2 * 9  # 12 positions, 10 channels, 2 heads, 9 taps
CHANNEL = 12 * 10 + 10 * 5 + 5 * 10 * 9 + 10 * 9
APPLY = 12 * 10 * 9
DDF = {
    "both": (dict(), SPATIAL + CHANNEL + 2 * APPLY),
    "add": (dict(combine="add"), SPATIAL + CHANNEL + 2 * APPLY),
    "spatial": (dict(branches="spatial"), SPATIAL + APPLY),
    "channel": (dict(branches="channel"), CHANNEL + APPLY),
    "batch": (dict(spatial_norm="batch", channel_norm="batch"), SPATIAL + CHANNEL + 2 * APPLY),
    "sigmoid": (
        dict(spatial_norm="sigmoid", channel_norm="sigmoid"),
        SPATIAL - 12 * 2 * 9 + CHANNEL - 10 * 9 + 2 * APPLY,
    ),
    "none": (dict(spatial_norm=None, channel_norm=None), SPATIAL - 12 * 2 * 9 + CHANNEL - 10 * 9 + 2 * APPLY),
}


@pytest.mark.parametrize("arguments, operations", DDF.values(), ids=DDF)
@pytest.mark.parametrize("shape", [(6, 8, 10), (10, 6, 8)])
def test_ddf(shape, arguments, operations):
    data_format = "channels_last" if shape[-1] == 10 else "channels_first"
    layer = DDF2D(strides=2, heads=2, squeeze_ratio=0.5, data_format=data_format, **arguments)
    assert count_flops(model_of(layer, shape=shape)) == operations


UP = {
    "plain": (dict(), None, 4 * 12 * (9 * 10 + 10 * 9 + 10 * 9)),
    "heads": (dict(heads=2), None, 4 * 12 * (9 * 10 + 10 * 2 * 9 + 10 * 9)),
    "window": (dict(scale_factor=3, kernel_size=(3, 5)), None, 9 * 12 * (9 * 10 + 10 * 15 + 10 * 15)),
    "guide": (dict(), 1, 4 * 12 * (5 * 9 + 10 * 9)),
    "large_guide": (dict(), 2, 4 * 12 * (5 * 9 + 10 * 9)),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("arguments, times, operations", UP.values(), ids=UP)
def test_ddf_up(arguments, times, operations, data_format):
    shapes = [(3, 4, 10)] + ([] if times is None else [(3 * times, 4 * times, 5)])
    if data_format == "channels_first":
        shapes = [(shape[2], *shape[:2]) for shape in shapes]
    inputs = [keras.Input(shape) for shape in shapes]
    layer = DDFUp2D(**arguments, data_format=data_format)
    assert count_flops(keras.Model(inputs, layer(inputs if times else inputs[0]))) == operations


REPOSITORY = {  # 12 positions, filters of 27 values, 4 filters, 5 features
    "shared": (dict(base_filters=2), 5 * 2 * 4 + 12 * 2 * (27 + 4)),
    "many": (dict(base_filters=30, algorithm="shared"), 5 * 30 * 4 + 12 * 27 * (27 + 4) + 27 * 30 * 4),
    "per_sample": (dict(base_filters=2, algorithm="per_sample"), 5 * 2 * 4 + 27 * 2 * 4 + 12 * 27 * 4),
    "bias": (dict(base_filters=2, dynamic_bias="after", use_bias=True), 5 * 2 * 4 + 5 * 4 + 12 * 2 * (27 + 4)),
}


@pytest.mark.parametrize("shape", [(6, 8, 3), (3, 6, 8)])
@pytest.mark.parametrize("arguments, operations", REPOSITORY.values(), ids=REPOSITORY)
def test_repository(arguments, operations, shape):
    data_format = "channels_last" if shape[-1] == 3 else "channels_first"
    inputs = [keras.Input(shape), keras.Input((5,))]
    layer = RepositoryConv2D(4, 3, strides=2, data_format=data_format, **arguments)
    assert count_flops(keras.Model(inputs, layer(inputs))) == operations


@pytest.mark.parametrize(
    "network, millions",
    [
        # As in docs/design/models.md: base filters, mixing, dense layers; the classifier; normalisation.
        (models.repository_cifar10, 47.94 + 11.31 + 18.61 + 0.01 + 0.12),
        (models.repository_cifar10_baseline, 48.96 + 0.01 + 0.12),
    ],
)
def test_filter_repository_networks(network, millions):
    network = network()
    inner = {layer.name: layer for layer in network.layers}
    assert count_flops(inner.get("prediction", network)) == pytest.approx(millions * 1e6, abs=2e4)


def test_generator_of_a_filter_repository_network():
    network = models.repository_mnist(encoder_channels=3, base_filters=2)
    encoder = 28 * 28 * 3 * (25 * 1 + 1) + 14 * 14 * 3 * (25 * 3 + 1)  # normalisation: one per value
    decoder = 28 * 28 * 9 * 3
    shrinking = 7 * 7 * 3 * (16 * 3 + 1) + 7 * 7 * 3 * (4 * 3 + 1)  # the first convolution of each reduction
    features = 2 * (3 * 3 * 3 * (9 * 3 + 1) + 3 * (9 * 3 + 1) + 3 * 3)
    generator = count_flops(network.get_layer("generator"))
    assert generator == encoder + decoder + shrinking + features
    assert count_flops(network) == generator + count_flops(network.get_layer("prediction"))


def test_upsampling_of_the_detector_in_the_paper():
    """The paper prints 0.58B for three 2x upsamplings of 256 channels, from 1/32 of an image of 800 x 1280 pixels."""
    model = model_of(DDFUp2D(), shape=(None, None, 256))
    operations = [count_flops(model, (800 // stride, 1280 // stride, 256)) for stride in (32, 16, 8)]
    assert operations[0] == 1000 * 27_648 and round(sum(operations) / 1e9, 4) == 0.5806


def test_count_parameters():
    model = model_of(keras.layers.Conv2D(5, 1), keras.layers.BatchNormalization())
    assert count_parameters(model) == 4 * 5 + 5 + 2 * 5 == model.count_params() - 2 * 5


def test_sums_count_each_operand_after_the_first():
    first, second, third = (keras.Input((4, 5, 3)) for _ in range(3))
    model = keras.Model([first, second, third], keras.layers.Add()([first, second, third]))
    assert count_flops(model) == 2 * 60
    gate = keras.Input((1, 1, 3))
    assert count_flops(keras.Model([first, gate], keras.layers.Multiply()([first, gate]))) == 60


def test_layers_count_as_often_as_they_are_called():
    inputs = keras.Input((6, 8, 4))
    shared = keras.layers.Conv2D(4, 1)
    pooled = keras.layers.MaxPooling2D(2)(shared(inputs))
    model = keras.Model(inputs, shared(shared(pooled)))
    assert count_flops(model) == 16 * (48 + 12 + 12)
    other = keras.Model(inputs, pooled)  # shares the layers, but calls them less often
    assert count_flops(other) == 16 * 48


def test_nested_models():
    inner = model_of(keras.layers.Conv2D(4, 3, padding="same"), shape=(None, None, 4))
    sequence = keras.Sequential([keras.Input((None, None, 4)), keras.layers.Conv2D(4, 1), keras.layers.ReLU()])
    inputs = keras.Input((6, 8, 4))
    model = keras.Model(inputs, inner(sequence(keras.layers.MaxPooling2D(2)(inner(inputs, training=False)))))
    assert count_flops(model) == 144 * 48 + 16 * 12 + 144 * 12


def test_several_outputs():
    inputs = keras.Input((6, 8, 4))
    inner = keras.Model(inputs, [keras.layers.MaxPooling2D(2)(inputs), inputs])
    half, full = inner(inputs)
    model = keras.Model(inputs, [keras.layers.Conv2D(1, 1)(full), keras.layers.Conv2D(3, 1)(half), half])
    assert count_flops(model) == 4 * 48 + 12 * 12

    images = keras.Input((None, None, 4))
    inner = keras.Model(images, keras.layers.MaxPooling2D(2)(images))
    first = inner(inputs)
    second = inner(first)  # of size (1, 2); the first is of size (3, 4)
    for outputs in ([first, second], [second, first]):
        outer = keras.Model(inputs, outputs, name="outer")
        ends = [keras.layers.Dense(1, use_bias=False)(output) for output in outer(inputs)]
        whole = keras.Model(inputs, [*ends, keras.layers.Dense(10)(outer(inputs)[0])])
        assert count_flops(whole) == 4 * (12 + 2) + 40 * (12 if outputs[0] is first else 2)


def test_sizes_of_the_inputs():
    model = model_of(keras.layers.Conv2D(5, 1), shape=(None, None, 4))
    assert count_flops(model, (3, 7, 4)) == 420 and count_flops(model, input_shape=[(3, 7, 4)]) == 420
    with pytest.raises(ValueError, match=r"Expected `input_shape` to give the sizes.*input_shape=None"):
        count_flops(model)
    with pytest.raises(ValueError, match=r"a shape for each of the 1 inputs.*2 shapes"):
        count_flops(model, [(3, 7, 4), (3, 7, 4)])


@pytest.mark.parametrize(
    "input_shape, message",
    [
        ((8, 8, 3), r"to suit the inputs of the model, \(None, None, 4\)\. Received: input_shape=\(8, 8, 3\)"),
        ((8, 8), "to suit the inputs of the model"),
        ((1, 8, 8, 4), "to suit the inputs of the model"),
        ((0, 8, 4), "to have positive integers as sizes"),
        ((8, -1, 4), "to have positive integers as sizes"),
        ((8, 2.5, 4), "to have positive integers as sizes"),
        ("abc", "to have positive integers as sizes. Received: input_shape='abc'"),
        (8, r"to be \(height, width, channels\), or a list of such tuples\. Received: input_shape=8"),
        ([8, 8, 4], r"to be \(height, width, channels\), or a list of such tuples"),
    ],
)
def test_shapes_that_do_not_suit_the_model(input_shape, message):
    model = model_of(keras.layers.Conv2D(5, 1), shape=(None, None, 4))
    with pytest.raises(ValueError, match=f"Expected `input_shape` {message}"):
        count_flops(model, input_shape)


def test_named_inputs():
    """Keras sorts the inputs by name."""
    model = models.dfn_steerable()
    inputs = {"images": keras.Input((8, 8, 2), name="images"), "angles": keras.Input((3,), name="angles")}
    ends = [keras.layers.Conv2D(5, 1)(inputs["images"]), keras.layers.Dense(7)(inputs["angles"])]
    assert count_flops(keras.Model(inputs, ends)) == 64 * 10 + 21
    with pytest.raises(ValueError, match=r"Expected a rule for every layer.*DynamicConv2D"):
        count_flops(model, [(1,), (8, 8, 1)])


def test_rules():
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

        def compute_output_shape(self, input_shape):
            return input_shape

    model = model_of(Twice(name="twice"), FilterNorm("spatial", 2))
    with pytest.raises(ValueError, match=r"pass `rules={Twice: ...}` for this one. Received: layer 'twice'"):
        count_flops(model)
    assert count_flops(model, rules={Twice: lambda layer, inputs, output: 7 * output[1]}) == 7 * 6 + 192
    rules = {Twice: lambda layer, inputs, output: 0, FilterNorm: lambda layer, inputs, output: inputs[0][-1]}
    assert count_flops(model, rules=rules) == 4


def test_operations_that_are_not_layers():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs) + inputs)
    with pytest.raises(ValueError, match=r"Expected (all operations of the model to be layers|a rule for every layer)"):
        count_flops(model)


def test_models_without_a_graph():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(3)]), "resnet"):
        with pytest.raises(ValueError, match=r"Expected `model` to be a functional or sequential keras.Model"):
            count_flops(model)
    called = Subclassed()
    called(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match=r"Expected `model` to be a functional or sequential keras.Model"):
        count_flops(called)


def test_docstring_example():
    module = importlib.import_module(count_flops.__module__)
    assert doctest.testmod(module, raise_on_error=True).attempted == 2
