# SPDX-License-Identifier: Apache-2.0
"""The filter repository networks have the parameters and the sizes of the paper's tables, and train."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import models
from keras_dynfilter.inspection import count_parameters
from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.models import autoencoder, dimension_reduction, feature_generator, generated_network

pytestmark = pytest.mark.legacy
LOSSES = {"classes": "sparse_categorical_crossentropy", "reconstruction": "binary_crossentropy"}


def parameters_by_part(model):
    """Counts the trainable parameters of each part of a generated network."""
    generator, prediction = model.get_layer("generator"), model.get_layer("prediction")
    counts = dict(autoencoder=0, reduction=0, repositories=0, coefficients=0, coefficient_biases=0, others=0)
    for layer in generator.layers:
        counts["reduction" if layer.name.startswith("features_") else "autoencoder"] += count_parameters(layer)
    for layer in prediction.layers:
        if isinstance(layer, RepositoryConv2D):
            counts["repositories"] += count_parameters(layer.repository)
            counts["coefficients"] += math.prod(layer.generator.kernel.shape)
            counts["coefficient_biases"] += math.prod(layer.generator.bias.shape)
        else:
            counts["others"] += count_parameters(layer)
    return counts


def small(**arguments):
    return models.repository_mnist(**{"encoder_channels": 4, "base_filters": 3, **arguments})


def digits(count, seed=3):
    return np.random.default_rng(seed).uniform(size=(count, 28, 28, 1)).astype("float32")


@pytest.mark.parametrize(
    "encoder_channels, base_filters, ae, reduction, repositories, coefficients, biases, total",
    [
        (5, 5, 906, 925 + 625, 750, 250, 50, 4_316),
        (10, 5, 3_061, 3_600 + 2_400, 750, 500, 50, 11_171),
        (20, 2, 11_121, 14_200 + 9_400, 300, 400, 20, 36_251),
        (20, 5, 11_121, 14_200 + 9_400, 750, 1_000, 50, 37_331),
        (20, 10, 11_121, 14_200 + 9_400, 1_500, 2_000, 100, 39_131),
    ],
)
def test_parameters_of_mnist(encoder_channels, base_filters, ae, reduction, repositories, coefficients, biases, total):
    model = models.repository_mnist(encoder_channels, base_filters)
    assert list(parameters_by_part(model).values()) == [ae, reduction, repositories, coefficients, biases, 810]
    assert count_parameters(model) == total == sum(parameters_by_part(model).values())


def test_parameters_of_cifar10():
    model = models.repository_cifar10()
    assert parameters_by_part(model) == dict(
        autoencoder=660_867,
        reduction=1_080_992,
        repositories=960_192,
        coefficients=18_612_224,
        coefficient_biases=151_552,
        others=2 * (64 + 128 + 256 + 256) + 2_570,
    )
    assert count_parameters(model) == 21_469_805
    layers = [layer for layer in model.get_layer("prediction").layers if isinstance(layer, RepositoryConv2D)]
    assert [layer.base_filters for layer in layers] == [64, 128, 256, 256]


@pytest.mark.parametrize("filters, total", [(32, 2_249_352), (64, 3_865_160)])
def test_parameters_of_mtfl(filters, total):
    model = models.repository_mtfl(filters)
    counts = parameters_by_part(model)
    assert count_parameters(model) == total == sum(counts.values())
    features, values_per_filter = (64, 64, 96, 96, 128), (27, *[9 * filters] * 4)
    assert counts["autoencoder"] == 577_155
    assert counts["repositories"] == filters * sum(values_per_filter)
    assert counts["coefficients"] == filters**2 * sum(features) and counts["coefficient_biases"] == 5 * filters**2
    convolutions, normalization = 4 * (9 * filters**2 + filters) + 45 * filters + 5, 9 * 2 * filters
    assert counts["others"] == convolutions + normalization
    # The number of taps of each window in tables 10 to 14, times the square of the channels of the layer.
    reduction = (16 + 16 + 16) * 64**2 + (16 + 16 + 4) * 64**2 + (16 + 16) * 96**2 + (16 + 4) * 96**2 + 16 * 128**2
    reduction += sum(count * 3 * size for count, size in [(6, 64), (4, 96), (1, 128)])  # biases, normalisation
    reduction += sum(size * size + size for size in features)  # dense layers
    assert counts["reduction"] == reduction


@pytest.mark.parametrize(
    "model, parameters",
    [
        (lambda: models.repository_mnist_baseline(), 1_570),
        (lambda: models.repository_mnist_baseline(use_bias=False), 1_560),
        (lambda: models.repository_mtfl_baseline(32), 76_901),
        (lambda: models.repository_mtfl_baseline(64), 301_253),
        (lambda: models.repository_cifar10_baseline(), 964_874),
        (lambda: models.repository_cifar10_baseline(use_bias=False), 964_170),
        (lambda: models.vgg11(), 9_493_770),
    ],
)
def test_parameters_of_the_baselines(model, parameters):
    assert count_parameters(model()) == parameters


def sizes(model, layers):
    return [tuple(model.get_layer(name).output.shape)[1:] for name in layers]


def reductions(generator):
    """Returns the sizes after each convolution and at the end of each dimension reduction, by name of the features."""
    convolutions = {name: [] for name in generator.output if name != "reconstruction"}
    for layer in generator.layers:
        name = layer.name.rpartition("_")[0]
        if name in convolutions and isinstance(layer, keras.layers.Conv2D):
            convolutions[name].append(layer.name)
    return {name: sizes(generator, [*layers, name]) for name, layers in convolutions.items()}


def test_sizes_of_mnist():
    model = models.repository_mnist(encoder_channels=6)
    generator, prediction = model.get_layer("generator"), model.get_layer("prediction")
    assert sizes(prediction, ["conv_1", "pool_1", "conv_2", "pool_2"]) == [
        (24, 24, 5),
        (12, 12, 5),
        (8, 8, 5),
        (4, 4, 5),
    ]
    names = ["encoder_1", "encoder_2", "decoder_out", "reconstruction"]
    assert sizes(generator, names) == [(28, 28, 6), (14, 14, 6), (28, 28, 1), (28, 28, 1)]
    reduction = [(7, 7, 6), (3, 3, 6), (1, 1, 6), (6,)]
    assert reductions(generator) == {"features_1": reduction, "features_2": reduction}
    baseline = models.repository_mnist_baseline()
    names = ["conv_1", "pool_1", "conv_2", "pool_2", "classes"]
    assert sizes(baseline, names) == sizes(prediction, names)


def test_sizes_of_cifar10():
    model = models.repository_cifar10(base_filters=2)
    generator, prediction = model.get_layer("generator"), model.get_layer("prediction")
    expected = [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 256)]
    assert sizes(prediction, [f"conv_{index}" for index in range(1, 5)]) == expected
    assert sizes(models.repository_cifar10_baseline(), [f"conv_{index}" for index in range(1, 5)]) == expected
    names = [*(f"encoder_{index}" for index in range(1, 5)), *(f"decoder_{index}" for index in range(1, 4))]
    channels = [(32, 64), (16, 96), (8, 128), (4, 128), (8, 128), (16, 96), (32, 96)]
    assert sizes(generator, names) == [(size, size, count) for size, count in channels]
    # Tables 17 to 20.
    assert reductions(generator) == {
        "features_1": [(8, 8, 64), (2, 2, 64), (1, 1, 64), (64,)],
        "features_2": [(4, 4, 96), (1, 1, 96), (96,)],
        "features_3": [(2, 2, 128), (1, 1, 128), (128,)],
        "features_4": [(1, 1, 128), (128,)],
    }
    assert not any(isinstance(generator.get_layer(f"encoder_{index}_relu"), keras.layers.LeakyReLU) for index in (1, 4))


def test_sizes_of_mtfl():
    model = models.repository_mtfl(8)
    generator, prediction = model.get_layer("generator"), model.get_layer("prediction")
    names = [f"conv_{number}" for number in range(1, 11)]
    expected = [(size, size, 8) for size in (64, 32, 16, 8, 4, 8, 16, 32, 64)] + [(64, 64, 5)]
    assert sizes(prediction, names) == sizes(models.repository_mtfl_baseline(8), names) == expected
    names = [*(f"encoder_{index}" for index in range(1, 6)), *(f"decoder_{index}" for index in range(1, 5))]
    channels = [(64, 64), (32, 64), (16, 96), (8, 96), (4, 128), (8, 96), (16, 96), (32, 64), (64, 64)]
    assert sizes(generator, [*names, "reconstruction"]) == [(size, size, count) for size, count in channels] + [
        (64, 64, 3)
    ]
    # Tables 10 to 14.
    assert reductions(generator) == {
        "features_1": [(16, 16, 64), (4, 4, 64), (1, 1, 64), (64,)],
        "features_2": [(8, 8, 64), (2, 2, 64), (1, 1, 64), (64,)],
        "features_3": [(4, 4, 96), (1, 1, 96), (96,)],
        "features_4": [(2, 2, 96), (1, 1, 96), (96,)],
        "features_5": [(1, 1, 128), (128,)],
    }
    assert generator.get_layer("encoder_1_relu").__class__ is keras.layers.LeakyReLU
    assert generator.get_layer("decoder_1_relu").__class__ is keras.layers.ReLU


def test_which_convolutions_of_mtfl_are_generated():
    model = models.repository_mtfl(4, generated={2: 1, 9: 1, 5: 4})
    layers = model.get_layer("prediction").layers
    generated = {layer.name: layer.generator.kernel.shape[0] for layer in layers if isinstance(layer, RepositoryConv2D)}
    assert generated == {"conv_2": 64, "conv_5": 96, "conv_9": 64}
    assert set(model.get_layer("generator").output) == {"features_1", "features_4", "reconstruction"}
    for wrong in ({}, {10: 1}, {1: 6}, [1, 2], 5):
        with pytest.raises(ValueError, match="Expected `generated` to be a dict of numbers"):
            models.repository_mtfl(4, generated=wrong)


@pytest.mark.parametrize(
    "stage", ["encoder_1", "encoder_1_bn", "features_1_1", "features_1_dense", "encoder_2", "features_2_3"]
)
def test_the_loss_of_the_classes_trains_the_generator(stage):
    model = small()
    images = digits(4)
    layer = model.get_layer("generator").get_layer(stage)
    weights = layer.trainable_weights
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(np.arange(4), model(images, training=True)["classes"])
        )
    for weight, gradient in zip(weights, tape.gradient(loss, weights)):
        # A bias before normalisation has no effect, so its gradient is 0 up to rounding.
        without_effect = isinstance(layer, keras.layers.Conv2D) and len(weight.shape) == 1
        assert gradient is not None and (without_effect or np.abs(gradient).max() > 1e-6), weight.name


def test_train_save_and_load(tmp_path):
    model = small()
    images = digits(16)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile("adam", loss=LOSSES, metrics={"classes": "accuracy"}, run_eagerly=True)
    history = model.fit(images, {"classes": np.arange(16) % 10, "reconstruction": images}, verbose=0)
    logs = {name: values[0] for name, values in history.history.items()}
    assert set(logs) == {"loss", "classes_loss", "reconstruction_loss", "classes_accuracy"}
    np.testing.assert_allclose(logs["loss"], logs["classes_loss"] + logs["reconstruction_loss"], rtol=1e-3)
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 0, weight.name
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, expected in model(images).items():
        np.testing.assert_allclose(loaded(images)[name], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow  # compiles for ten seconds
def test_train_under_xla():
    model = small()
    images = digits(16)
    model.compile("adam", loss=LOSSES, jit_compile=True)
    history = model.fit(images, {"classes": np.arange(16) % 10, "reconstruction": images}, epochs=3, verbose=0)
    losses = history.history["loss"]
    assert model.jit_compile and np.all(np.isfinite(losses)) and losses[-1] < losses[0]


def test_features_from():
    post_norm, pre_norm = small(), small(features_from="pre_norm")
    for model, name in ((post_norm, "encoder_1_bn"), (pre_norm, "encoder_1")):
        generator = model.get_layer("generator")
        generator.get_layer("encoder_1_bn").gamma.assign([2.0] * 4)
        first = generator.get_layer("features_1_1")
        source = keras.Model(generator.inputs[0], [generator.get_layer(name).output, first.output])
        maps, reduced = source(digits(2))
        np.testing.assert_allclose(first(maps), reduced, rtol=1e-5, atol=1e-6)
    assert count_parameters(post_norm) == count_parameters(pre_norm)


def test_outputs_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("prediction").get_layer("conv_1").compute_dtype == "bfloat16"
    outputs = model(digits(2))
    assert {name: value.dtype for name, value in outputs.items()} == {
        "classes": tf.float32,
        "reconstruction": tf.float32,
    }
    np.testing.assert_allclose(np.sum(outputs["classes"], axis=1), 1, rtol=1e-5)


IMAGES = keras.Input((8, 8, 1))
ERRORS = {
    "encoder_channels": (
        lambda: models.repository_mnist(0),
        "Expected `encoder_channels` to be a positive integer.* encoder_channels=0",
    ),
    "base_filters": (
        lambda: models.repository_mnist(base_filters=0),
        "Expected `base_filters` to be a positive integer.* base_filters=0",
    ),
    "format": (
        lambda: models.repository_mnist(data_format="channels_first"),
        "Expected `data_format` to be 'channels_last'.*'channels_first'",
    ),
    "features_from": (
        lambda: models.repository_mnist(features_from="relu"),
        "Expected `features_from` to be one of 'pre_norm', 'post_norm'",
    ),
    "filters": (lambda: models.repository_mtfl_baseline(0), "Expected `filters` to be a positive integer"),
    "size": (lambda: models.vgg11((28, 28, 1)), r"Expected `input_shape` to have sizes that 32 divides.*\(28, 28, 1\)"),
    "kernel_size": (lambda: autoencoder(IMAGES, [(2, 1)], [], 4), "Expected `kernel_size` to be odd.* kernel_size=4"),
    "layers": (
        lambda: feature_generator((8, 8, 1), [(2, 1), (2, 2)], [2], [None]),
        r"Expected `windows` for each encoder layer, or None\. Received: windows=\[None\]",
    ),
    "generator": (
        lambda: generated_network(feature_generator((8, 8, 1), [(2, 1)], [], [None]), None, "classes", "network"),
        r"Expected `generator` to be a model of images to 'features_1', .*\['reconstruction'\]",
    ),
    "features": (
        lambda: generated_network(
            keras.Model(
                IMAGES, {"reconstruction": keras.layers.ReLU()(IMAGES), "code": keras.layers.Flatten()(IMAGES)}
            ),
            None,
            "classes",
            "network",
        ),
        r"Expected `generator` to be a model of images to 'features_1', .*\['reconstruction', 'code'\]",
    ),
    "prefix": (
        lambda: generated_network(
            keras.Model(IMAGES, {"reconstruction": keras.layers.ReLU()(IMAGES), "1": keras.layers.Flatten()(IMAGES)}),
            None,
            "classes",
            "network",
        ),
        r"Expected `generator` to be a model of images to 'features_1', .*\['reconstruction', '1'\]",
    ),
    "one output": (
        lambda: generated_network(models.repository_mnist_baseline(), None, "classes", "network"),
        r"Expected `generator` to be a model of images to 'features_1', .* with outputs \[\]",
    ),
    "decoder": (
        lambda: autoencoder(IMAGES, [(2, 1), (2, 2)], []),
        r"Expected the decoder to end at the size of the images, \(8, 8\)\. Received: \(4, 4\)",
    ),
    "windows": (
        lambda: dimension_reduction(IMAGES, [(2, 2, 0)]),
        r"Expected `windows` to shrink \(8, 8\) to one position.*end at \(4, 4\)",
    ),
}


@pytest.mark.parametrize("call, message", ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
