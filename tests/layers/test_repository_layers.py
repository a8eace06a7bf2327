# SPDX-License-Identifier: Apache-2.0
"""FilterRepository, RepositoryConv2D: both algorithms against a reference implementation, initial values, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import FilterRepository, RepositoryConv2D
from keras_dynfilter.ops import backends
from tests.support import reference

pytestmark = pytest.mark.legacy
EXACT = dict(rtol=1e-10, atol=1e-10)

# Arguments of the layer, and the size of the image, which has 3 channels. A 3x3 filter has 27 values. With more base
# filters, the shared algorithm replaces the base filters by unit filters.
CASES = {
    "default": (dict(kernel_size=3), (5, 6)),
    "valid": (dict(kernel_size=5, padding="valid", base_filters=2), (9, 7)),
    "strides": (dict(kernel_size=3, strides=2, base_filters=6), (6, 7)),
    "dilation": (dict(kernel_size=3, dilation_rate=(2, 1)), (7, 6)),
    "dilation, valid": (dict(kernel_size=3, dilation_rate=2, padding="valid"), (7, 6)),
    "strides, dilation": (dict(kernel_size=3, strides=(1, 2), dilation_rate=2), (7, 6)),
    "even": (dict(kernel_size=(4, 2), strides=(2, 1)), (7, 6)),
    "one pixel": (dict(kernel_size=1, strides=2), (5, 4)),
    "many base filters": (dict(kernel_size=3, base_filters=40, strides=2), (6, 5)),
    "many, dilation": (dict(kernel_size=3, base_filters=28, dilation_rate=2), (5, 6)),
}
every_case = pytest.mark.parametrize("arguments, size", CASES.values(), ids=CASES)


def normal(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape)


def make(algorithm="auto", filters=4, features=7, channels=3, **arguments):
    """Returns a built layer with biases that are not zero."""
    options = dict(use_bias=True, dynamic_bias="after", bias_initializer="ones", dtype="float64")
    layer = RepositoryConv2D(filters, algorithm=algorithm, **{**options, **arguments})
    image = (2, channels, 9, 9) if layer.data_format == "channels_first" else (2, 9, 9, channels)
    layer.build([image, (2, features)])
    if layer.dynamic_bias:
        layer.bias_generator.kernel.assign(normal(features, filters, seed=6))
    return layer


def results(layer, images, features):
    """Returns the outputs, and the gradients with respect to images, features and all weights."""
    images, features = tf.convert_to_tensor(images), tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch([images, features])
        outputs = layer([images, features])
        loss = tf.reduce_sum(tf.sin(outputs))
    return [outputs, *tape.gradient(loss, [images, features, *layer.trainable_weights])]


@every_case
def test_both_algorithms(arguments, size, data_format):
    images, features = normal(2, *size, 3), normal(2, 7, seed=8)
    layer_images = np.moveaxis(images, 3, 1) if data_format == "channels_first" else images
    layers = [make(algorithm, data_format=data_format, **arguments) for algorithm in ("shared", "per_sample")]
    layers[1].set_weights(layers[0].get_weights())
    assert [layer.chosen_algorithm(layer_images.shape) for layer in layers] == ["shared", "per_sample"]

    coefficients = layers[0].coefficients(features).numpy()
    dense = layers[0].generator
    np.testing.assert_allclose(
        coefficients.reshape(2, -1), features @ dense.kernel.numpy() + dense.bias.numpy(), **EXACT
    )
    filters = np.einsum("uvcm,nmf->nuvcf", layers[0].repository.repository.numpy(), coefficients)
    np.testing.assert_allclose(layers[0].generated_filters(features), filters, **EXACT)
    geometry = {name: getattr(layers[0], name) for name in ("strides", "dilation_rate", "padding")}
    bias = features @ normal(7, 4, seed=6)
    expected = reference.dynamic_conv2d(images, filters, **geometry) + bias[:, None, None] + 1

    both = [results(layer, layer_images, features) for layer in layers]
    for outputs, *_ in both:
        outputs = np.moveaxis(outputs, 1, 3) if data_format == "channels_first" else outputs
        np.testing.assert_allclose(outputs, expected, **EXACT)
    assert len(both[0]) == 1 + 2 + 6
    for shared, per_sample in zip(*both):
        assert np.abs(per_sample).max() > 1e-3
        np.testing.assert_allclose(shared, per_sample, **EXACT)


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
@pytest.mark.parametrize("base_filters", [3, 30])
def test_finite_differences(algorithm, base_filters):
    layer = make(algorithm, kernel_size=3, base_filters=base_filters, strides=2)
    images, features = normal(2, 5, 6, 3), normal(2, 7)
    _, by_images, by_features, *by_weights = results(layer, images, features)

    def loss(images, features):
        return np.sum(np.sin(layer([images, features])))

    step, direction = 1e-5, normal(2, 5, 6, 3, seed=1)
    numeric = loss(images + step * direction, features) - loss(images - step * direction, features)
    np.testing.assert_allclose(np.sum(by_images * direction), numeric / (2 * step), rtol=1e-6)
    direction = normal(2, 7, seed=2)
    numeric = loss(images, features + step * direction) - loss(images, features - step * direction)
    np.testing.assert_allclose(np.sum(by_features * direction), numeric / (2 * step), rtol=1e-6)
    for weight, gradient in zip(layer.trainable_weights, by_weights):
        before, direction = weight.numpy(), normal(*weight.shape, seed=3)
        ends = []
        for sign in (1, -1):
            weight.assign(before + sign * step * direction)
            ends.append(loss(images, features))
        weight.assign(before)
        numeric = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), numeric, rtol=1e-5, err_msg=weight.name)


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_the_identity_gives_a_convolution_with_the_base_filters(algorithm):
    identity = keras.initializers.Constant(np.eye(4).ravel())
    layer = make(
        algorithm,
        kernel_size=3,
        coefficients_initializer="zeros",
        coefficients_bias_initializer=identity,
        use_bias=False,
        dynamic_bias=None,
    )
    images = normal(3, 6, 5, 3)
    bank = np.broadcast_to(layer.repository.repository.numpy(), (3, 3, 3, 3, 4))
    geometry = dict(strides=(1, 1), dilation_rate=(1, 1), padding="same")
    expected = reference.dynamic_conv2d(images, bank, **geometry)
    np.testing.assert_allclose(layer([images, normal(3, 7)]), expected, **EXACT)


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_samples_have_filters_of_their_own(algorithm):
    layer = make(algorithm, kernel_size=3)
    images, features = np.repeat(normal(1, 6, 5, 3), 3, axis=0), normal(3, 7)
    outputs = layer([images, features]).numpy()
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1
    order = [2, 0, 1]
    np.testing.assert_allclose(layer([images, features[order]]), outputs[order], **EXACT)


@pytest.mark.parametrize("base_filters", [10, 18, 25])
def test_base_filters_start_orthonormal(base_filters):
    layer = FilterRepository(4, 3, 2, base_filters)
    layer.build((None, base_filters, 4))
    matrix = layer.repository.numpy().reshape(18, base_filters)
    gram = matrix.T @ matrix if base_filters <= 18 else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("base_filters", [16, 64])
def test_scale_of_the_filters_at_the_start(base_filters):
    """For features of mean square 1, the mean squared norm is 2, and half of it is common to all samples."""
    layer = RepositoryConv2D(64, 3, base_filters)
    layer.build([(None, 8, 8, 3), (None, 256)])
    filters = layer.generated_filters(normal(64, 256).astype("float32")).numpy()
    np.testing.assert_allclose(np.sum(filters**2, axis=(1, 2, 3)).mean(), 2, rtol=0.1)
    np.testing.assert_allclose(np.sum(filters.mean(axis=0) ** 2, axis=(0, 1, 2)).mean(), 1, rtol=0.15)


ALGORITHMS = {
    "CIFAR-10, layer 1": ((32, 32, 3), dict(filters=64, kernel_size=3), "shared"),
    "CIFAR-10, layer 4": ((8, 8, 256), dict(filters=256, kernel_size=3, strides=2), "shared"),
    "unknown size": ((None, None, 64), dict(filters=64, kernel_size=3), "shared"),
    "1x1 window": ((32, 32, 16), dict(filters=16, kernel_size=1), "per_sample"),
    "1x1 window, unknown size": ((None, None, 16), dict(filters=16, kernel_size=1), "per_sample"),
    "1x1 window, few base filters": ((4, 4, 64), dict(filters=64, kernel_size=1, base_filters=4), "shared"),
    "strides and dilation": ((32, 32, 64), dict(filters=64, kernel_size=3, strides=4, dilation_rate=2), "per_sample"),
    "strides alone": ((32, 32, 64), dict(filters=64, kernel_size=3, strides=4), "shared"),
    "many base filters": ((64, 64, 64), dict(filters=2, kernel_size=3, base_filters=512), "per_sample"),
    "many base filters, small image": ((2, 2, 64), dict(filters=256, kernel_size=3, base_filters=512), "shared"),
}


@pytest.mark.parametrize("image, arguments, algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_the_cheaper_algorithm(image, arguments, algorithm):
    assert RepositoryConv2D(**arguments).chosen_algorithm((None, *image)) == algorithm
    for forced in ("shared", "per_sample"):
        assert RepositoryConv2D(**arguments, algorithm=forced).chosen_algorithm((None, *image)) == forced
    transposed = (None, image[2], *image[:2])
    assert RepositoryConv2D(**arguments, data_format="channels_first").chosen_algorithm(transposed) == algorithm


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_unknown_sizes(algorithm, data_format):
    layer = RepositoryConv2D(4, 3, strides=2, algorithm=algorithm, data_format=data_format)
    image = keras.Input((3, None, None) if data_format == "channels_first" else (None, None, 3))
    features = keras.Input((7,))
    model = keras.Model([image, features], layer([image, features]))
    known = layer.compute_output_shape(
        [(None, 3, 7, 6) if data_format == "channels_first" else (None, 7, 6, 3), (None, 7)]
    )
    assert tuple(known) == ((None, 4, 4, 3) if data_format == "channels_first" else (None, 4, 3, 4))
    channel = 1 if data_format == "channels_first" else 3
    assert [axis for axis, size in enumerate(model.output_shape) if size is not None] == [channel]
    values = [normal(2, *((3, 7, 6) if channel == 1 else (7, 6, 3))).astype("float32"), normal(2, 7)]
    outputs = model.predict(values, verbose=0)
    assert outputs.shape == (2, *known[1:])
    np.testing.assert_allclose(outputs, layer(values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["auto", "shared"])
@pytest.mark.parametrize("images", [(0, 7, 6, 3), (2, 2, 2, 3)], ids=["batch", "positions"])
def test_empty_inputs_and_outputs(algorithm, images):
    layer = make(algorithm, kernel_size=3, padding="valid", strides=2)
    outputs, by_images, by_features, *_ = results(layer, np.ones(images), np.ones((images[0], 7)))
    assert outputs.shape == layer.compute_output_shape([images, (images[0], 7)])
    assert 0 in outputs.shape and by_images.shape == images and by_features.shape == (images[0], 7)


@pytest.mark.parametrize("algorithm", ["auto", "shared", "per_sample"])
@pytest.mark.parametrize(
    "arguments", [dict(), dict(strides=2), dict(dilation_rate=2), dict(strides=2, dilation_rate=2)]
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_empty_batch_of_unknown_size(algorithm, arguments, jit_compile, request):
    if jit_compile:
        request.getfixturevalue("native_xla")
    layer = make(algorithm, kernel_size=3, **arguments)
    specs = tf.TensorSpec((None, 7, 6, 3), "float64"), tf.TensorSpec((None, 7), "float64")
    compute = tf.function(lambda *inputs: results(layer, *inputs), specs, autograph=False, jit_compile=jit_compile)
    outputs, by_images, by_features, *_ = compute(tf.zeros((0, 7, 6, 3), "float64"), tf.zeros((0, 7), "float64"))
    assert outputs.shape[0] == 0 and by_images.shape == (0, 7, 6, 3) and by_features.shape == (0, 7)


@pytest.mark.parametrize("geometry", [dict(dilation_rate=2), dict(strides=2)])
def test_under_xla(geometry):
    layer = make("shared", kernel_size=3, base_filters=30, **geometry)
    inputs = normal(2, 7, 6, 3), normal(2, 7)
    compiled = tf.function(lambda *inputs: results(layer, *inputs), jit_compile=True, autograph=False)
    for actual, expected in zip(compiled(*inputs), results(layer, *inputs)):
        np.testing.assert_allclose(actual, expected, **EXACT)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_activation(algorithm, data_format):
    layer = make(algorithm, kernel_size=3, data_format=data_format)
    images = normal(2, 3, 6, 5) if data_format == "channels_first" else normal(2, 6, 5, 3)
    outputs = layer([images, normal(2, 7)])
    layer.activation = keras.activations.softmax  # over the channels
    axis = 1 if data_format == "channels_first" else -1
    np.testing.assert_allclose(layer([images, normal(2, 7)]), tf.nn.softmax(outputs, axis=axis), **EXACT)


def test_regularizer_of_the_bias_and_constraint_of_the_base_filters():
    options = dict(bias_regularizer=keras.regularizers.L2(0.5), repository_constraint="non_neg")
    layer = make("shared", kernel_size=3, dtype="float32", **options)  # Keras 2 lists no other losses here
    assert float(layer.losses[0]) == pytest.approx(0.5 * 4)  # four ones
    bank = layer.repository.repository
    assert np.min(bank) < 0 and np.min(bank.constraint(bank)) == 0


def test_regularizer_of_the_coefficients():
    layer = make("shared", kernel_size=3, dtype="float32", coefficients_regularizer=keras.regularizers.L1(0.5))
    assert float(sum(layer.losses)) == pytest.approx(0.5 * np.abs(layer.generator.kernel).sum(), rel=1e-5)


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_integers(algorithm):
    layer = make(algorithm, kernel_size=3, dtype="float32")
    images, features = np.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3) % 256, np.arange(14).reshape(2, 7)
    expected = layer([images.astype("float32"), features.astype("float32")])
    for dtype in ("uint8", "int64"):
        np.testing.assert_array_equal(layer([images.astype(dtype), features.astype(dtype)]), expected)
    features = features.astype("int64")
    np.testing.assert_array_equal(layer.coefficients(features), layer.coefficients(features.astype("float32")))
    ones = FilterRepository(4, 3, 2)(np.eye(4, dtype="int32")[None])
    assert np.count_nonzero(ones) == 3 * 3 * 2 * 4


def test_supports_jit_loads_the_library_only_if_compiled_ops_run(monkeypatch):
    calls = []
    monkeypatch.setattr(backends, "supports_jit", lambda: calls.append(True) or False)
    assert make("shared", kernel_size=3).supports_jit and make("per_sample", kernel_size=3).supports_jit
    assert make("shared", kernel_size=3, channels=1).supports_jit and not calls
    assert not make("per_sample", kernel_size=3, channels=1).supports_jit
    assert not make("per_sample", kernel_size=3, filters=1).supports_jit and len(calls) == 2
    # Before the layer is built, the images may still turn out to have one channel.
    assert not RepositoryConv2D(4, 3, algorithm="per_sample").supports_jit


def test_models_are_saved_loaded_and_trained(tmp_path):
    image, features = keras.Input((6, 5, 3), name="image"), keras.Input((7,), name="features")
    outputs = RepositoryConv2D(4, 3, 2, use_bias=True, dynamic_bias="after", repository_regularizer="l2")(
        [image, features]
    )
    filters = FilterRepository(2, 3, 4, name="filters")(keras.layers.Dense(4)(features))
    model = keras.Model([image, features], [outputs, filters])
    values = [normal(8, 6, 5, 3).astype("float32"), normal(8, 7).astype("float32")]
    before = [weight.numpy() for weight in model.trainable_weights]
    assert len(before) == 6 + 2 + 1 and len(model.losses) == 1
    model.compile("adam", ["mse", "mse"], run_eagerly=True)
    model.fit(values, [np.ones((8, 6, 5, 4)), np.ones((8, 3, 3, 4, 2))], verbose=0)
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 1e-4, weight.name
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for actual, expected in zip(loaded(values), model(values)):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def test_repository_takes_flat_coefficients():
    layer = FilterRepository(3, (2, 3), channels=4, base_filters=5, dtype="float64")
    coefficients = normal(2, 5, 3)
    filters = layer(coefficients)
    expected = np.einsum("uvcm,nmf->nuvcf", layer.repository.numpy(), coefficients)
    np.testing.assert_allclose(filters, expected, **EXACT)
    np.testing.assert_array_equal(layer(coefficients.reshape(2, 15)), filters)
    assert layer.compute_output_shape((None, 15)) == (None, 2, 3, 4, 3)
