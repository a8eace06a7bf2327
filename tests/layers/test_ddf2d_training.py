# SPDX-License-Identifier: Apache-2.0
"""DDF2D inside models: training in all variants and under XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.layers import DDF2D

pytestmark = pytest.mark.legacy


def normal(*shape):
    return np.random.default_rng(9).standard_normal(shape)


def small_model(**arguments):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = DDF2D(squeeze_ratio=0.5, **arguments)(x)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, dtype="float32")(x))


def train(model, **options):
    """Trains the model to multiply images by the sign of their mean; returns the loss of every epoch."""
    images = np.random.default_rng(3).standard_normal((32, 8, 8, 1)).astype("float32")
    images += np.random.default_rng(4).choice([-1, 1], (32, 1, 1, 1)).astype("float32")
    targets = images * np.sign(images.mean(axis=(1, 2, 3), keepdims=True))
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    return model.fit(images, targets, batch_size=8, epochs=15, shuffle=False, verbose=0).history["loss"]


def check_training(arguments, tmp_path):
    model = small_model(**arguments)
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = train(model)
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.7 * losses[0], losses
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 1e-3, f"{weight.name} has not been trained"
    data = normal(2, 8, 8, 1).astype("float32")
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(data), model(data), atol=1e-6)


def test_trains(implementation, tmp_path):
    with keras_dynfilter.implementation(implementation):
        check_training({}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        dict(combine="add", heads=2),
        dict(spatial_norm="batch", channel_norm="batch"),
        dict(spatial_norm="sigmoid", channel_norm="sigmoid"),
        dict(dtype="mixed_float16"),
    ],
    ids=["add", "batch", "sigmoid", "half"],
)
def test_variants_train(arguments, tmp_path):
    check_training(arguments, tmp_path)


def test_xla_gives_the_same_gradients(xla_implementation):
    layer, images = DDF2D(strides=2, dtype="float64"), tf.constant(normal(2, 5, 6, 4))

    def gradients(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.sin(layer(images)))
        return tape.gradient(loss, [images, *layer.trainable_weights])

    with keras_dynfilter.implementation(xla_implementation):
        expected = gradients(images)
        actual = tf.function(gradients, jit_compile=True)(images)
    assert len(actual) == 8
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_trains_under_xla(native_xla):
    model = small_model()
    losses = train(model, jit_compile=True)
    assert model.jit_compile and losses[-1] < 0.7 * losses[0], losses
