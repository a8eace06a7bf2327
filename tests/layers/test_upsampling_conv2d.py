# SPDX-License-Identifier: Apache-2.0
"""UpsamplingConv2D equals a convolution of the upsampled map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D

pytestmark = pytest.mark.legacy


def networks(kernel_size, sizes=(6, 5)):
    """Returns a model with the layer and a model with upsampling and a convolution, with the same weights."""
    images = keras.Input((*sizes, 4))
    up = keras.Model(images, UpsamplingConv2D(3, kernel_size)(images))
    enlarged = keras.layers.UpSampling2D(2)(images)
    plain = keras.Model(images, keras.layers.Conv2D(3, kernel_size, padding="same")(enlarged))
    kernel, bias = plain.get_weights()
    up.set_weights([kernel, bias + [0.5, -1.0, 2.0]])
    plain.set_weights(up.get_weights())
    return up, plain


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_outputs_and_gradients(kernel_size):
    images, upstream = normal(2, 6, 5, 4), normal(2, 12, 10, 3, seed=1)
    results = []
    for model in networks(kernel_size):
        inputs = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs)
            loss = tf.reduce_sum(outputs * upstream)
        results.append([outputs, *tape.gradient(loss, [inputs, *model.trainable_weights])])
    for value, expected in zip(*results):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_unknown_sizes():
    up, plain = networks(5, sizes=(None, None))
    assert up.output_shape == (None, None, None, 3)
    images = normal(1, 3, 8, 4)
    np.testing.assert_allclose(up(images), plain(images), rtol=1e-4, atol=1e-5)
    assert networks(3, sizes=(6, None))[0].output_shape == (None, 12, None, 3)


def test_under_xla():
    up, plain = networks(5)
    images = normal(2, 6, 5, 4)
    compiled = tf.function(up, jit_compile=True)
    np.testing.assert_allclose(compiled(images), plain(images), rtol=1e-4, atol=1e-5)


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match=r"Expected `kernel_size` to be odd\. Received: kernel_size=2"):
        UpsamplingConv2D(3, 2)
    with pytest.raises(ValueError, match=r"Expected `inputs` to have shape.*Received: inputs.shape=.*3, 4"):
        UpsamplingConv2D(3, 3).build((2, 3, 4))
