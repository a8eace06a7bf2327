# SPDX-License-Identifier: Apache-2.0
"""FilterNorm: values against its formula in NumPy and against worked numbers, derivatives, errors."""

import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import FilterNorm

pytestmark = pytest.mark.legacy
MODES = pytest.mark.parametrize("mode", ["eager", "function", "xla"])
# The filter with the taps 1 to 9, normalised: (i - 5) / sqrt(7.5) / 3, times the gain.
RELU = [-0.688530, -0.516398, -0.344265, -0.172133, 0.0, 0.172133, 0.344265, 0.516398, 0.688530]
LINEAR = [-0.486864, -0.365148, -0.243432, -0.121716, 0.0, 0.121716, 0.243432, 0.365148, 0.486864]


def run(function, values, mode):
    return function(values) if mode == "eager" else tf.function(function, jit_compile=mode == "xla")(values)


def normal(*shape):
    return np.random.default_rng(5).standard_normal(shape)


def truth(filters, axis, gain):
    """Computes the formula for `filters` with an axis of taps."""
    deviation = filters.std(axis=axis, ddof=1, keepdims=True) + 1e-10
    return (filters - filters.mean(axis=axis, keepdims=True)) / deviation * gain / np.sqrt(filters.shape[axis])


@MODES
@pytest.mark.parametrize("gain, expected", [("relu", RELU), ("linear", LINEAR), (2, 2 * np.array(LINEAR))])
def test_worked_vectors(gain, expected, mode):
    taps = np.arange(1.0, 10.0)
    spatial = FilterNorm("spatial", gain=gain)
    np.testing.assert_allclose(np.ravel(run(spatial, taps.reshape(1, 1, 1, 9), mode)), expected, rtol=1e-5, atol=1e-6)
    channel = FilterNorm("channel", gain=gain, scale="constant")
    np.testing.assert_allclose(np.ravel(run(channel, taps.reshape(1, 3, 3, 1), mode)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("kernel_size", [3, (1, 5), (5, 3)])
def test_spatial_filters_are_normalised_per_pixel_and_head(kernel_size, heads, data_format):
    layer = FilterNorm("spatial", kernel_size, data_format=data_format, dtype="float64")
    filters = normal(2, 3, 4, heads, layer.taps)
    expected = truth(filters, -1, np.sqrt(2)).reshape(2, 3, 4, -1)
    inputs = filters.reshape(2, 3, 4, -1)
    if data_format == "channels_first":
        inputs, expected = np.moveaxis(inputs, 3, 1), np.moveaxis(expected, 3, 1)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-12, atol=1e-14)
    assert layer.weights == []


@pytest.mark.parametrize("kernel_size", [3, (1, 5)])
def test_channel_filters_are_normalised_per_sample_and_channel(kernel_size):
    layer = FilterNorm("channel", kernel_size, dtype="float64")
    filters = normal(3, *layer.kernel_size, 4)
    output = layer(filters).numpy().reshape(3, layer.taps, 4)
    (scale,) = layer.get_weights()
    assert scale.shape == (layer.taps, 4)
    flat = filters.reshape(3, layer.taps, 4)
    np.testing.assert_allclose(output, truth(flat, 1, np.sqrt(layer.taps)) * scale, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scale", ["constant", "filter", "tap"])
@pytest.mark.parametrize("center", [None, "filter", "tap"])
@pytest.mark.parametrize("kind", ["spatial", "channel"])
def test_scale_and_center(kind, scale, center, data_format):
    layer = FilterNorm(kind, scale=scale, center=center, gain="linear", data_format=data_format, dtype="float64")
    grouped = normal(2, 4, 5, 2, 9)  # two heads, or two channels
    if kind == "spatial":
        inputs, axis = grouped.reshape(2, 4, 5, 18), 4
        first = data_format == "channels_first"
        output = np.moveaxis(layer(np.moveaxis(inputs, 3, 1)), 1, 3) if first else layer(inputs)
        output = np.reshape(output, grouped.shape)
    else:
        grouped = np.moveaxis(grouped[:, 0, 0], -1, 1)  # samples, taps, channels
        axis = 1
        output = np.reshape(layer(grouped.reshape(2, 3, 3, 2)), grouped.shape)
    weights = {weight.name.split("/")[-1].split(":")[0]: weight.numpy() for weight in layer.weights}
    sizes = {"filter": 2, "tap": 18}
    assert {name: value.size for name, value in weights.items()} == {
        name: sizes[per] for name, per in (("scale", scale), ("center", center)) if per in sizes
    }
    factor = 1.0 if scale == "constant" else 3.0 * weights["scale"]
    expected = truth(grouped, axis, 1.0) * factor + weights.get("center", 0.0)
    np.testing.assert_allclose(output, expected, rtol=1e-10, atol=1e-12)


def test_initial_values():
    layer = FilterNorm("channel", center="tap")
    layer.build((None, 3, 3, 1000))
    scale, center = layer.get_weights()
    np.testing.assert_allclose([scale.std(), center.std()], [np.sqrt(2) / 3, 1], rtol=0.05)
    assert abs(scale.mean()) < 0.02 and abs(center.mean()) < 0.04
    layer = FilterNorm("channel", scale="filter", center="filter")
    layer.build((None, 3, 3, 7))
    scale, center = layer.get_weights()
    np.testing.assert_allclose(scale, np.full((1, 7), np.sqrt(2) / 3), rtol=1e-6)
    np.testing.assert_array_equal(center, np.zeros((1, 7)))
    layer = FilterNorm("spatial", scale="tap", scale_initializer="ones")
    layer.build((None, 4, 4, 18))
    np.testing.assert_array_equal(layer.get_weights()[0], np.ones((2, 9)))


def test_epsilon_is_added_to_the_deviation():
    taps = 1e-10 * (np.arange(9.0) - 4) / np.sqrt(7.5)  # their standard deviation is 1e-10
    layer = FilterNorm("spatial", gain=3, dtype="float64")
    np.testing.assert_allclose(np.ravel(layer(taps.reshape(1, 1, 1, 9))), taps * 1e10 / 2, rtol=1e-9, atol=1e-15)
    layer = FilterNorm("spatial", gain=3, epsilon=3e-10, dtype="float64")
    np.testing.assert_allclose(np.ravel(layer(taps.reshape(1, 1, 1, 9))), taps * 1e10 / 4, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size, epsilon", [(1e-12, 1e-10), (1e-17, 1e-10), (1e-17, 0.0), (1e17, 1e-10)])
def test_very_small_and_large_filters(size, epsilon, dtype):
    """The squares of the values are close to the limits of float32."""
    filters = size * normal(2, 3, 4, 9)
    output = FilterNorm("spatial", gain=3, epsilon=epsilon, dtype=dtype)(filters)
    centred = filters - filters.mean(axis=-1, keepdims=True)
    expected = centred / (filters.std(axis=-1, ddof=1, keepdims=True) + epsilon)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind, shape", [("spatial", (2, 3, 4, 9)), ("channel", (2, 3, 3, 20))])
def test_nan_stays_within_its_filter(kind, shape):
    filters, expected = normal(*shape), np.zeros(shape, bool)
    filters[1, 2, 2, 4] = np.nan
    expected[(1, 2, 2) if kind == "spatial" else (1, ..., 4)] = True
    with tf.GradientTape() as tape:
        filters = tf.constant(filters)
        tape.watch(filters)
        output = FilterNorm(kind, dtype="float64")(filters)
        total = tf.reduce_sum(tf.square(output) * normal(*shape))
    np.testing.assert_array_equal(np.isnan(output), expected)
    np.testing.assert_array_equal(np.isnan(tape.gradient(total, filters)), expected)


@MODES
@pytest.mark.parametrize("value", [0.0, 0.1, -1e30])  # in float32, the mean of nine values 0.1 is not 0.1
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_filters_give_zero_with_finite_derivatives_of_every_order(value, dtype, mode):
    layer = FilterNorm("spatial", dtype=dtype)
    other = normal(1, 1, 1, 9)

    def derivatives(filters):
        with tf.GradientTape() as second:
            second.watch(filters)
            with tf.GradientTape() as first:
                first.watch(filters)
                outputs = layer(filters)
                loss = tf.reduce_sum(outputs * np.arange(9.0))
            gradient = first.gradient(loss, filters)
            squares = tf.reduce_sum(tf.square(gradient))
        return outputs, gradient, second.gradient(squares, filters)

    filters = tf.constant(np.concatenate([np.full((1, 1, 1, 9), value), other], axis=2), dtype)
    results = [np.asarray(result) for result in run(derivatives, filters, mode)]
    for result in results:
        np.testing.assert_array_equal(result[0, 0, 0], np.zeros(9))
        assert np.all(np.isfinite(result)) and np.abs(result[0, 0, 1]).max() > 0.01


@pytest.mark.parametrize(
    "layer, shape",
    [
        (FilterNorm("spatial", dtype="float64"), (1, 1, 2, 18)),
        (FilterNorm("spatial", data_format="channels_first", dtype="float64"), (1, 18, 1, 2)),
        (FilterNorm("channel", center="tap", dtype="float64"), (2, 3, 3, 2)),
    ],
    ids=["spatial", "channels_first", "channel"],
)
def test_finite_differences(layer, shape):
    filters = tf.constant(normal(*shape))
    analytic, numeric = tf.test.compute_gradient(tf.function(layer), [filters], delta=2.0**-14)
    np.testing.assert_allclose(analytic[0], numeric[0], rtol=0, atol=1e-6)

    @tf.function
    def gradient(filters):
        with tf.GradientTape() as tape:
            tape.watch(filters)
            loss = tf.reduce_sum(tf.sin(layer(filters)))
        return tape.gradient(loss, filters)

    analytic, numeric = tf.test.compute_gradient(gradient, [filters], delta=2.0**-14)
    np.testing.assert_allclose(analytic[0], numeric[0], rtol=0, atol=1e-5)


def test_a_large_mean_loses_no_precision():
    filters = normal(1, 2, 2, 9)
    shifted = (filters * 2**-10 + 1).astype("float32")
    layer = FilterNorm("spatial")
    np.testing.assert_allclose(layer(shifted), truth(shifted.astype("float64"), -1, np.sqrt(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy, dtype", [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")])
def test_mixed_precision_normalises_in_float32(policy, dtype):
    layer = FilterNorm("spatial", dtype=policy)
    filters = tf.cast(1000 * normal(2, 3, 4, 9), dtype)  # their squares overflow in float16
    output = layer(filters)
    assert output.dtype == dtype
    expected = truth(tf.cast(filters, tf.float64).numpy(), -1, np.sqrt(2))
    np.testing.assert_allclose(tf.cast(output, tf.float64), expected, rtol=2.0**-8, atol=1e-6)


ERRORS = {
    "kind": (lambda: FilterNorm("both"), "Expected `kind` to be one of 'spatial', 'channel'.*'both'"),
    "one tap": (lambda: FilterNorm(kernel_size=1), r"Expected `kernel_size` to have at least two taps.*\(1, 1\)"),
    "gain": (lambda: FilterNorm(gain="tanh"), "Expected `gain` to be 'relu', 'linear' or a positive number.*'tanh'"),
    "zero gain": (lambda: FilterNorm(gain=0), "Expected `gain` to be .* gain=0"),
    "scale": (lambda: FilterNorm(scale=True), "Expected `scale` to be one of 'constant', .* scale=True"),
    "center": (lambda: FilterNorm(center="constant"), "Expected `center` to be one of None, .*'constant'"),
    "epsilon": (lambda: FilterNorm(epsilon=-1), "Expected `epsilon` to be a non-negative number.* epsilon=-1"),
    "rank": (
        lambda: FilterNorm()(np.ones((2, 9))),
        r"Expected `inputs` to have shape \(batch, height, width, heads \*",
    ),
    "taps": (lambda: FilterNorm()(np.ones((2, 4, 4, 10))), r"heads \* 9\)\. Received: inputs.shape=\(2, 4, 4, 10\)"),
    "channels_first": (
        lambda: FilterNorm(data_format="channels_first")(np.ones((2, 4, 4, 9))),
        r"Expected `inputs` to have shape \(batch, heads \* 9, height, width\)",
    ),
    "window": (
        lambda: FilterNorm("channel")(np.ones((2, 3, 5, 4))),
        r"Expected `inputs` to have shape \(batch, 3, 3, channels\)\. Received: inputs.shape=\(2, 3, 5, 4\)",
    ),
}


@pytest.mark.parametrize("call, message", ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
