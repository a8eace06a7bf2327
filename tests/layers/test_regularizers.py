# SPDX-License-Identifier: Apache-2.0
"""The smoothness penalty: values, the two ways to use it, configuration, error messages."""

import doctest
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import regularizers
from keras_dynfilter.layers import DynamicConv2D, DynamicLocalFilter2D
from keras_dynfilter.regularizers import Smoothness

pytestmark = pytest.mark.legacy


def normal(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype("float32")


def penalty(filters, norm, height=1):
    """Computes the mean penalty over the batch in NumPy."""
    power = {"l2": 2, "l1": 1}[norm]
    return sum(np.mean(np.abs(np.diff(filters, axis=axis)) ** power) for axis in (height, height + 1))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_value(norm, data_format):
    filters = normal(3, 5, 6, 7)
    actual = Smoothness(0.3, norm, data_format)(filters)
    height = 1 if data_format == "channels_last" else 2
    np.testing.assert_allclose(actual, 3 * 0.3 * penalty(filters, norm, height), rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_constant_filters_cost_nothing(norm):
    assert float(Smoothness(1.0, norm)(np.broadcast_to(normal(2, 1, 1, 9), (2, 5, 6, 9)))) == 0


@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (2, 4, 1, 3), (2, 1, 1, 3), (0, 4, 4, 3)])
def test_no_neighbours(shape):
    filters = tf.constant(normal(*shape))
    with tf.GradientTape() as tape:
        tape.watch(filters)
        value = Smoothness(1.0)(filters)
    gradient = tape.gradient(value, filters)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    expected = sum(np.sum(np.diff(filters, axis=axis) ** 2) / 9 for axis in (1, 2))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_half_precision_is_summed_in_float32():
    filters = tf.cast(100 * normal(2, 8, 8, 9), tf.float16)  # the squares are beyond float16
    value = Smoothness(1.0)(filters)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, 2 * penalty(filters.numpy().astype("float32"), "l2"), rtol=1e-4)


def test_unknown_sizes():
    function = tf.function(Smoothness(1.0), input_signature=[tf.TensorSpec([None] * 4)])
    filters = normal(3, 5, 6, 7)
    np.testing.assert_allclose(function(filters), 3 * penalty(filters, "l2"), rtol=1e-5)


def test_both_ways_to_use_it_cost_the_mean():
    image = normal(4, 6, 7, 1)
    on_generator = keras.layers.Conv2D(9, 3, padding="same", activity_regularizer=Smoothness(0.2))
    layer = DynamicLocalFilter2D(3, generator=on_generator)
    layer(image)
    generated = on_generator(image).numpy()
    np.testing.assert_allclose(on_generator.losses[-1], 0.2 * penalty(generated, "l2"), rtol=1e-5)

    layer = DynamicLocalFilter2D(3, filters_regularizer=Smoothness(0.2))
    layer([image, generated])
    np.testing.assert_allclose(layer.losses, [0.2 * penalty(generated, "l2")], rtol=1e-5)


def test_training_with_it_smooths_the_filters():
    def roughness(factor):
        inputs = keras.Input((6, 6, 1))
        generator = keras.layers.Conv2D(9, 3, padding="same")
        layer = DynamicLocalFilter2D(3, generator=generator, filters_regularizer=Smoothness(factor))
        model = keras.Model(inputs, layer(inputs))
        model.compile(keras.optimizers.Adam(0.02), "mse")
        images = normal(16, 6, 6, 1)
        model.fit(images, images, epochs=12, verbose=0)
        return penalty(generator(images).numpy(), "l2")

    assert roughness(10.0) < 0.3 * roughness(0.0)


def test_config_round_trip():
    regularizer = Smoothness(0.25, norm="l1", data_format="channels_first")
    assert list(regularizer.get_config()) == ["factor", "norm", "data_format"]
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(regularizer)))
    assert serialized["registered_name"] == "keras_dynfilter>Smoothness"
    for restored in (Smoothness.from_config(regularizer.get_config()), keras.regularizers.get(serialized)):
        assert isinstance(restored, Smoothness)
        assert restored.get_config() == regularizer.get_config()


ERRORS = {
    "negative": (lambda: Smoothness(-1), r"Expected `factor` to be a non-negative number.* factor=-1"),
    "boolean": (lambda: Smoothness(True), r"Expected `factor` to be a non-negative number.* factor=True"),
    "infinite": (lambda: Smoothness(float("inf")), r"Expected `factor` to be a non-negative number.* factor=inf"),
    "text": (lambda: Smoothness("l2"), r"Expected `factor` to be a non-negative number.* factor='l2'"),
    "norm": (lambda: Smoothness(1, norm="l3"), r"Expected `norm` to be one of 'l2', 'l1'.* norm='l3'"),
    "layout": (lambda: Smoothness(1, data_format="NHWC"), r"Expected `data_format` to be one of .*'NHWC'"),
    "no layout": (lambda: Smoothness(1, data_format=""), r"Expected `data_format` to be one of .* data_format=''"),
    "array": (lambda: Smoothness(1, norm=normal(2)), r"Expected `norm` to be one of 'l2', 'l1'.* norm=array"),
    "rank": (lambda: Smoothness(1)(normal(2, 9)), r"Expected the filters to have rank 4.* shape=\(2, 9\)"),
    "flat filters": (
        lambda: DynamicConv2D(1, 3, filters_regularizer=Smoothness(1))([normal(2, 4, 4, 1), normal(2, 9)]),
        r"Expected the filters to have rank 4",
    ),
}


@pytest.mark.parametrize("make, message", ERRORS.values(), ids=ERRORS)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_docstring_example():
    results = doctest.testmod(regularizers, extraglobs=dict(tf=tf), raise_on_error=True)
    assert results.attempted >= 3
