# SPDX-License-Identifier: Apache-2.0
"""The convolution that enlarges is an ordinary one of the enlarged map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers._up_conv2d import UpConv2D

pytestmark = pytest.mark.legacy


def networks(kernel_size, sizes=(6, 5)):
    """A model of the layer, and one of those whose place it takes, with the same weights."""
    images = keras.Input((*sizes, 4))
    up = keras.Model(images, UpConv2D(3, kernel_size)(images))
    enlarged = keras.layers.UpSampling2D(2)(images)
    plain = keras.Model(images, keras.layers.Conv2D(3, kernel_size, padding="same")(enlarged))
    kernel, bias = plain.get_weights()
    up.set_weights([kernel, bias + [0.5, -1.0, 2.0]])
    plain.set_weights(up.get_weights())
    return up, plain


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_outputs_and_gradients_are_those_of_an_enlarged_map(kernel_size):
    rng = np.random.default_rng(kernel_size)
    images, by_outputs = rng.normal(size=(2, 6, 5, 4)), rng.normal(size=(2, 12, 10, 3))
    found = []
    for model in networks(kernel_size):
        inputs = tf.constant(images, "float32")
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs)
            loss = tf.reduce_sum(outputs * by_outputs)
        found.append([outputs, *tape.gradient(loss, [inputs, *model.trainable_weights])])
    for ours, expected in zip(*found):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_sizes_may_be_open():
    up, plain = networks(5, sizes=(None, None))
    assert up.output_shape == (None, None, None, 3)
    images = np.random.default_rng(0).normal(size=(1, 3, 8, 4)).astype("float32")
    np.testing.assert_allclose(up(images), plain(images), rtol=1e-4, atol=1e-5)
    assert networks(3, sizes=(6, None))[0].output_shape == (None, 12, None, 3)


@pytest.mark.parametrize("kernel_size", [0, 2, 2.5])
def test_even_windows_are_refused(kernel_size):
    with pytest.raises(ValueError, match="kernel_size"):
        UpConv2D(3, kernel_size)
