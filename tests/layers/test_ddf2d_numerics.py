# SPDX-License-Identifier: Apache-2.0
"""DDF2D: gradients, results in degenerate cases, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.layers import DDF2D, DDFUp2D, FilterNorm

pytestmark = pytest.mark.legacy


def normal(*shape):
    return np.random.default_rng(9).standard_normal(shape)


@pytest.mark.parametrize("arguments", [dict(), dict(combine="add", strides=2, heads=2)], ids=["default", "add"])
def test_finite_differences_of_the_layer(arguments, implementation):
    """Checks the gradients with respect to the inputs and every weight along random directions."""
    layer = DDF2D(**arguments, squeeze_ratio=1, dtype="float64")
    images = tf.constant(normal(2, 4, 5, 4))

    def loss(images):
        return tf.reduce_sum(tf.sin(layer(images)))

    with keras_dynfilter.implementation(implementation):
        loss(images)
        for weight in layer.trainable_weights:  # away from the kink of the bottleneck's ReLU
            weight.assign(tf.where(tf.abs(weight) < 0.01, 0.01, tf.convert_to_tensor(weight)))
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = loss(images)
        by_images, *by_weights = tape.gradient(value, [images, *layer.trainable_weights])
        direction = np.random.default_rng(1).standard_normal(images.shape)
        numeric = (loss(images + 1e-5 * direction) - loss(images - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(tf.reduce_sum(by_images * direction), numeric, rtol=1e-6)
        assert len(by_weights) == 7
        for weight, gradient in zip(layer.trainable_weights, by_weights):
            before = weight.numpy()
            direction = np.random.default_rng(2).standard_normal(before.shape)
            ends = []
            for step in (1e-5, -1e-5):
                weight.assign(before + step * direction)
                ends.append(loss(images))
            weight.assign(before)
            numeric = (ends[0] - ends[1]) / 2e-5
            actual = tf.reduce_sum(gradient * direction)
            np.testing.assert_allclose(actual, numeric, rtol=1e-5, atol=1e-8, err_msg=weight.name)


def test_pixels_of_zeros_have_finite_gradients(implementation):
    """With zero biases, the filters of zero pixels have a deviation of 0, where the square root has no derivative."""
    images = np.maximum(normal(2, 6, 6, 8), 0).astype("float32")
    images[:, :3] = 0
    images[1] = 0
    layer = DDF2D(generator_bias_initializer="zeros")
    with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
        images = tf.constant(images)
        tape.watch(images)
        output = layer(images)
        loss = tf.reduce_sum(tf.square(output - 1))
    gradients = tape.gradient(loss, [images, *layer.trainable_weights])
    assert len(gradients) == 8
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert all(np.abs(gradient).max() < 1e4 for gradient in gradients)
    np.testing.assert_array_equal(output[1], np.zeros((6, 6, 8)))


@pytest.mark.parametrize("channels", [7, 64])
def test_equal_weights_make_filters_of_zeros(channels, implementation):
    """The filters are exactly 0. The normalisation would scale rounding errors of the sums up to filters of size 1."""
    layer = DDF2D(branches="spatial", generator_initializer="ones", generator_bias_initializer="ones")
    with keras_dynfilter.implementation(implementation):
        output = layer(normal(2, 9, 8, channels).astype("float32"))
    np.testing.assert_array_equal(output, np.zeros_like(output))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sums_of_large_images_do_not_overflow(policy):
    large = DDF2D(dtype=policy)(np.full((1, 300, 300, 16), 300.0))  # the sum over a row is beyond float16
    assert np.all(np.isfinite(tf.cast(large, "float32")))


def test_regularizer_sees_the_three_kernels():
    layer = DDF2D(generator_regularizer=keras.regularizers.L2(1.0))
    layer(np.zeros((1, 4, 4, 8)))
    (branch,) = layer.generator.channel_branches
    kernels = [layer.generator.spatial_kernel, branch.squeeze.kernel, branch.expand.kernel]
    np.testing.assert_allclose(sum(layer.losses), sum(np.sum(np.square(kernel)) for kernel in kernels), rtol=1e-5)


def built_norm():
    norm = FilterNorm("channel", name="channel")
    norm.build((None, 3, 3, 4))
    return norm


ERRORS = {
    "even": (lambda: DDF2D(4), r"Expected `kernel_size` to be odd.*\(4, 4\)"),
    "one tap": (lambda: DDF2D(1), "Expected `kernel_size` to have at least two taps"),
    "squeeze": (lambda: DDF2D(squeeze_ratio=0), "Expected `squeeze_ratio` to be a positive number.*=0"),
    "heads": (lambda: DDF2D(heads=0), "Expected `heads` to be a positive integer.* heads=0"),
    "combine": (lambda: DDF2D(combine="max"), "Expected `combine` to be one of 'mul', 'add'.*'max'"),
    "branches": (lambda: DDF2D(branches=None), "Expected `branches` to be one of 'both', .* branches=None"),
    "norm": (
        lambda: DDF2D(spatial_norm="softmax"),
        "Expected `spatial_norm` to be one of 'filter', 'batch', 'sigmoid', None.*'softmax'",
    ),
    "norm type": (
        lambda: DDF2D(channel_norm=True),
        "Expected `channel_norm` to be one of 'filter', .*or a Keras layer.*=True",
    ),
    "norm kind": (
        lambda: DDF2D(spatial_norm=FilterNorm("channel")),
        r"Expected `spatial_norm` to be of kind 'spatial' and kernel_size \(3, 3\).*FilterNorm\('channel', \(3, 3\)\)",
    ),
    "norm window": (
        lambda: DDF2D(5, channel_norm=FilterNorm("channel", 3)),
        r"Expected `channel_norm` to be of kind 'channel' and kernel_size \(5, 5\)",
    ),
    "built norm": (
        lambda: DDF2D(channel_norm=built_norm()),
        "to be a layer without weights yet.*'channel', which has 1 w",
    ),
    "bias": (lambda: DDF2D(use_bias="yes"), "Expected `use_bias` to be one of False, True.*'yes'"),
    "rank": (lambda: DDF2D().build((2, 5, 6)), r"Expected `inputs` to have rank 4 \(channels_last\).*\(2, 5, 6\)"),
    "channels": (lambda: DDF2D().build((2, 5, 6, None)), "Expected `inputs` to have a known number of channels"),
    "no channels": (
        lambda: DDF2D().build((2, 5, 6, 0)),
        r"Expected `inputs` to have at least one channel\. Received: inputs.shape=\(2, 5, 6, 0\)",
    ),
    "channels first": (
        lambda: DDF2D(data_format="channels_first").build((2, None, 5, 6)),
        r"Expected `inputs` to have a known number of channels\. Received: inputs.shape=\(2, None, 5, 6\)",
    ),
    "division": (
        lambda: DDF2D(heads=3)(np.ones((2, 5, 6, 4))),
        "Expected `heads` to divide the channels.* heads=3, channels=4",
    ),
}


@pytest.mark.parametrize("call, message", ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("cls", [DDF2D, DDFUp2D])
def test_integers(cls):
    layer = cls()
    images = np.arange(2 * 4 * 4 * 3, dtype="uint8").reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(layer(images), layer(images.astype("float32")))


def test_integer_guides():
    layer = DDFUp2D(guide_size="input")
    images = np.arange(2 * 4 * 4 * 3, dtype="uint8").reshape(2, 4, 4, 3)
    floats = images.astype("float32")
    np.testing.assert_array_equal(layer([images, images]), layer([floats, floats]))


def test_built_layers_check_the_next_channels_too():
    layer = DDF2D()
    layer(np.ones((1, 4, 4, 8)))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 8"):
        layer(np.ones((1, 4, 4, 9)))
