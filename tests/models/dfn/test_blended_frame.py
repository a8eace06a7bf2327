# SPDX-License-Identifier: Apache-2.0
"""The blended network for moving digits: its parts follow plain formulas, and it trains and can be saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import inspection, models
from keras_dynfilter.ops import local_filter2d

pytestmark = pytest.mark.legacy
TOLERANCE = dict(rtol=1e-4, atol=1e-5)


def small(**arguments):
    """Builds the network with few channels, and with weights whose values differ clearly between positions."""
    model = models.dfn_moving_mnist_blended((12, 16, 1), kernel_size=5, output_frames=2, width=0.125, **arguments)
    rng = np.random.default_rng(7)
    for weight in model.trainable_weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) == 4 else 25
        weight.assign(1.4 * rng.standard_normal(tuple(weight.shape)) / np.sqrt(fan_in))
    return model


def frames(count=4):
    return np.random.default_rng(0).random((2, count, 12, 16, 1)).astype("float32")


def test_number_of_parameters():
    assert models.dfn_moving_mnist_blended().count_params() == 636_262
    assert models.dfn_moving_mnist().count_params() >= 636_262


def test_filtered_frames_are_blended_with_painted_pixels():
    layer, rng = models.BlendedFrame((3, 5), filters=2), np.random.default_rng(0)
    assert layer.count_values() == 2 * 15 + 3 + 1
    frame, values = rng.random((2, 6, 7, 1), np.float32), rng.standard_normal((2, 6, 7, 34)).astype("float32")
    first, second = (local_filter2d(frame, values[..., i : i + 15], (3, 5), normalization="softmax") for i in (0, 15))
    painted = 1 / (1 + np.exp(-values[..., 33:]))
    weights = np.exp(values[..., 30:33]) / np.exp(values[..., 30:33]).sum(axis=-1, keepdims=True)
    expected = (np.concatenate([first, second, painted], axis=-1) * weights).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(layer([frame, values]), expected, **TOLERANCE)


def test_gated_state():
    network = models.FilterNetwork(3, encoder=(2, 3), state=4, low_decoder=(2,), recurrent="gated")
    images = np.random.default_rng(0).random((2, 8, 8, 1)).astype("float32")
    network(images)
    gates, candidate = network.recurrence
    for weight in (*gates.weights, *candidate.weights):
        weight.assign(tf.random.stateless_normal(weight.shape, [1, 2]))
    features = network.encode(images)
    state = np.random.default_rng(1).standard_normal(features.shape).astype("float32")

    def convolved(layer, values):
        return tf.nn.conv2d(values, layer.weights[0], 1, "SAME") + layer.weights[1]

    update, reset = np.split(tf.sigmoid(convolved(gates, np.concatenate([features, state], -1))).numpy(), 2, axis=-1)
    candidate_state = tf.tanh(convolved(candidate, np.concatenate([features, reset * state], -1))).numpy()
    expected = (1 - update) * state + update * candidate_state
    np.testing.assert_allclose(network.advance(features, state), expected, **TOLERANCE)
    assert np.std(update) > 0.1 and np.std(reset) > 0.1


def test_predictions_are_fed_back_and_filters_returned():
    model, inputs = small(), frames()
    outputs = model(inputs, steps=3, return_filters=True)
    assert outputs["frames"].shape == (2, 3, 12, 16, 1) and outputs["filters"].shape == (2, 3, 12, 16, 2 * 25)
    assert np.min(outputs["frames"]) >= 0 and np.max(outputs["frames"]) <= 1
    np.testing.assert_allclose(np.sum(outputs["filters"][..., :25], axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sum(outputs["filters"][..., 25:], axis=-1), 1, rtol=1e-5)
    continued = model(np.concatenate([inputs, outputs["frames"][:, :1]], axis=1), steps=1)
    np.testing.assert_allclose(continued[:, 0], outputs["frames"][:, 1], **TOLERANCE)
    np.testing.assert_array_equal(inspection.generated_filters(model, inputs, steps=1), outputs["filters"][:, :1])


def test_save_and_load(tmp_path):
    model = small()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(frames()), model(frames()))


def test_every_weight_gets_a_gradient():
    model = small()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(frames()) - 0.5))
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights)):
        assert np.abs(gradient).max() > 0, weight.name


def test_unknown_recurrence():
    with pytest.raises(ValueError, match=r"Expected `recurrent` to be False, True or 'gated'\. Received: .*'lstm'"):
        models.FilterNetwork(3, recurrent="lstm")
