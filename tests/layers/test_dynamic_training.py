# SPDX-License-Identifier: Apache-2.0
"""Trains a model with given and generated filters: by default, under XLA, in mixed precision, on two devices."""

import keras
import numpy as np
import pytest

import keras_dynfilter
from keras_dynfilter.layers import DynamicConv2D, DynamicDepthwiseConv2D, DynamicLocalFilter2D
from keras_dynfilter.regularizers import Smoothness

pytestmark = pytest.mark.legacy

BATCH = 8


def per_sample(values):
    """Returns a generator of flat filters."""
    return keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(values)])


def make_model():
    """Returns a model whose depth-wise layer gets filters from another network; the other layers have generators."""
    inputs = keras.Input((8, 8, 1))
    logits = keras.layers.Conv2D(10, 3, padding="same")
    x = DynamicLocalFilter2D(
        3, normalization="softmax", dynamic_bias="before", generator=logits, filters_regularizer=Smoothness(0.01)
    )(inputs)
    x = DynamicConv2D(2, 3, dynamic_bias="after", generator=per_sample(19))(x)
    x = DynamicDepthwiseConv2D(3, separable=True)([x, per_sample(12)(inputs)])
    outputs = keras.layers.Conv2D(1, 1, dtype="float32")(x)
    return keras.Model(inputs, outputs)


def data():
    """Returns images, and the images shifted by one pixel to the left."""
    images = np.random.default_rng(11).uniform(size=(4 * BATCH, 8, 8, 1)).astype("float32")
    shifted = np.zeros_like(images)
    shifted[:, :, :-1] = images[:, :, 1:]
    return images, shifted


def train(model, epochs=12, **options):
    """Fits the model and returns the loss of every epoch."""
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    images, targets = data()
    return model.fit(images, targets, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def check_training(**options):
    model = make_model()
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = train(model, **options)
    assert len(before) == 8
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 1e-3, f"{weight.name} has not been trained"
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.5 * losses[0], losses
    return model


def test_default(implementation):
    with keras_dynfilter.implementation(implementation):
        check_training()


def test_jit_compile(xla_implementation):
    with keras_dynfilter.implementation(xla_implementation):
        model = check_training(jit_compile=True)
    assert model.jit_compile


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, implementation):
    keras.mixed_precision.set_global_policy(policy)
    try:
        with keras_dynfilter.implementation(implementation):
            model = check_training()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert any(layer.compute_dtype == policy.removeprefix("mixed_") for layer in model.layers)


MIRRORED = """
import keras
import numpy as np
import tensorflow as tf
from tests.layers import test_dynamic_training as training

keras.utils.set_random_seed(0)
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
single = training.make_model()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    mirrored = training.make_model()
    mirrored.set_weights(single.get_weights())
    losses = training.train(mirrored)
expected = training.train(single)
np.testing.assert_allclose(losses, expected, rtol=0.01)
assert losses[-1] < 0.5 * losses[0], losses
for value, reference in zip(mirrored.get_weights(), single.get_weights()):
    np.testing.assert_allclose(value, reference, rtol=0.02, atol=0.02)
print("trained alike")
"""


@pytest.mark.slow
def test_mirrored_on_two_devices_trains_like_one(python):
    process = python("-c", MIRRORED)  # logical devices must be made before TensorFlow starts
    assert process.returncode == 0 and "trained alike" in process.stdout, process.stderr[-4000:]
