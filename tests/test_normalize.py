# SPDX-License-Identifier: Apache-2.0
"""Filters normalised over their own taps, by the compiled op and composed."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.layers import DDF2D, FilterNorm
from keras_dynfilter.ops import _normalize

# [outer, taps, inner]: taps or filters side by side in memory, whole vectors and a rest, more than fit on the stack.
SHAPES = [(37, 9, 1), (5, 2, 1), (3, 9, 16), (2, 9, 40), (7, 25, 3), (4, 81, 21)]
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
GAIN, EPSILON = 1.4, 1e-10
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def filters_of(shape, dtype="float64", seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def truth(filters, epsilon=EPSILON):
    filters = np.asarray(filters, "float64")
    deviation = filters.std(axis=1, ddof=1, keepdims=True) + epsilon
    return GAIN * (filters - filters.mean(axis=1, keepdims=True)) / deviation


def run(filters, implementation, epsilon=EPSILON):
    with keras_dynfilter.implementation(implementation):
        if implementation == "composite":
            assert not _normalize.native()
            filters = _normalize.centred(filters, 1)
        return _normalize.normalized(filters, 1, GAIN, epsilon)


def derivatives(filters, function):
    """Of the first, second and third order."""
    first, second, third = (filters_of(filters.shape, filters.dtype, seed) for seed in (1, 2, 3))
    with tf.GradientTape() as outermost:
        outermost.watch(filters)
        with tf.GradientTape() as outer:
            outer.watch([filters, first])
            with tf.GradientTape() as inner:
                inner.watch(filters)
                outputs = function(filters)
            by_filters = inner.gradient(outputs, filters, first)
        by_both = outer.gradient(by_filters, [filters, first], second)
    return [by_filters, *by_both, outermost.gradient(by_both[0], filters, third)]


@pytest.fixture
def compiled(native_xla):
    """What needs the compiled op to be used: not without XLA's part, and not on GPUs."""
    if tf.config.get_visible_devices("GPU"):
        pytest.skip("on GPUs, filters are normalised by composed ops")
    with keras_dynfilter.implementation("native"):
        assert _normalize.native()


@pytest.fixture(params=["native", "composite"])
def form(request):
    """An implementation that is used here."""
    if request.param == "native":
        request.getfixturevalue("compiled")
    return request.param


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape, dtype, form):
    filters = filters_of(shape, dtype)
    outputs = run(filters, form)
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, truth(filters), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives(shape, compiled):
    filters = filters_of(shape)
    found = derivatives(filters, lambda values: run(values, "native"))
    expected = derivatives(filters, lambda values: run(values, "composite"))
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(other).max()))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_under_xla(shape, dtype, compiled):
    filters = filters_of(shape, dtype)

    def compute(values):
        return [run(values, "native"), *derivatives(values, lambda values: run(values, "native"))[:2]]

    for one, other in zip(tf.function(compute, jit_compile=True)(filters), compute(filters)):
        tolerance = 20 * TOLERANCE[dtype] * max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@DTYPES
@pytest.mark.parametrize("size, epsilon", [(1e-12, 1e-10), (1e-17, 1e-10), (1e-17, 0.0), (1e17, 1e-10)])
def test_very_small_and_large_filters(size, epsilon, dtype, compiled):
    """Squares lie at the edge of the numbers, their products beyond it."""
    filters = tf.cast(size * filters_of((8, 9, 1)), dtype)
    with tf.GradientTape() as tape:
        tape.watch(filters)
        outputs = run(filters, "native", epsilon)
    grad = filters_of(filters.shape, dtype, seed=1)
    found = tape.gradient(outputs, filters, grad)
    np.testing.assert_allclose(outputs, truth(filters, epsilon), rtol=1e-4, atol=1e-5)
    exact = tf.cast(filters, "float64")
    with tf.GradientTape() as tape:
        tape.watch(exact)
        outputs = run(exact, "composite", epsilon)
    expected = tape.gradient(outputs, exact, tf.cast(grad, "float64"))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@DTYPES
@pytest.mark.parametrize("inner", [1, 20])
def test_what_is_not_a_number_stays_with_its_filter(inner, dtype, compiled):
    filters = filters_of((6, 9, inner), dtype).numpy()
    filters[2, 4, -1], filters[3, :, 0] = np.nan, 0.1
    with tf.GradientTape() as tape:
        values = tf.constant(filters)
        tape.watch(values)
        outputs = run(values, "native")
    gradient = tape.gradient(outputs, values, filters_of(filters.shape, dtype, seed=1))
    for result in (outputs.numpy(), gradient.numpy()):
        expected = np.zeros(filters.shape, bool)
        expected[2, :, -1] = True
        np.testing.assert_array_equal(np.isnan(result), expected)
        np.testing.assert_array_equal(result[3, :, 0], 0.0)  # all taps equal


@pytest.mark.parametrize("shape", [(0, 9, 4), (3, 9, 0)])
def test_empty(shape, form):
    assert run(tf.zeros(shape), form).shape == shape


@pytest.mark.legacy
@DTYPES
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_raw_ops(shape, dtype, native_ops):
    filters, grad = filters_of(shape, dtype), filters_of(shape, dtype, seed=1)
    constants = dict(gain=tf.constant(GAIN, dtype), epsilon=tf.constant(EPSILON, dtype), taps=shape[1])
    outputs = native_ops.keras_dynfilter_normalize_filters(filters=filters, **constants)
    np.testing.assert_allclose(outputs, truth(filters), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    gradient = native_ops.keras_dynfilter_normalize_filters_grad(filters=filters, grad=grad, **constants)
    with tf.GradientTape() as tape:
        tape.watch(filters)
        composed = _normalize.composed(filters, GAIN, EPSILON)
    expected = tape.gradient(composed, filters, grad)
    np.testing.assert_allclose(
        gradient, expected, rtol=1e-3, atol=50 * TOLERANCE[dtype] * max(1, np.abs(expected).max())
    )


@pytest.mark.legacy
@pytest.mark.parametrize("shape", [(60_000, 9, 1), (64, 9, 1000)])
def test_threads_change_nothing(shape, native_ops):
    """Filters are independent; many are shared out to threads."""
    filters = filters_of(shape, "float32")
    constants = dict(gain=GAIN, epsilon=EPSILON, taps=9)
    forward, gradient = native_ops.keras_dynfilter_normalize_filters, native_ops.keras_dynfilter_normalize_filters_grad
    outputs = forward(filters=filters, **constants)
    by_filters = gradient(filters=filters, grad=outputs + 1, **constants)
    for first in range(0, shape[0], shape[0] // 4):
        some = slice(first, first + 3)
        np.testing.assert_array_equal(outputs[some], forward(filters=filters[some], **constants))
        part = gradient(filters=filters[some], grad=outputs[some] + 1, **constants)
        np.testing.assert_array_equal(by_filters[some], part)


@pytest.mark.legacy
@pytest.mark.parametrize(
    "shapes, message",
    [
        (((3, 9), (), ()), "Expected filters"),
        (((3, 8, 2), (), ()), "Expected filters"),
        (((3, 9, 2), (1,), ()), "Expected gain and epsilon to be scalars"),
        (((3, 9, 2), (), (2,)), "Expected gain and epsilon to be scalars"),
        (((3, 9, 2), (3, 9, 1), (), ()), "Expected filters"),
        (((3, 9), (3, 9), (), ()), "Expected filters"),
    ],
)
def test_raw_ops_refuse(shapes, message, native_ops):
    forward, gradient = native_ops.keras_dynfilter_normalize_filters, native_ops.keras_dynfilter_normalize_filters_grad
    raw = gradient if len(shapes) == 4 else forward
    given = [tf.zeros(shape) for shape in shapes]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        raw(*given, taps=9)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.function(lambda: raw(*given, taps=9))()
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="taps"):
        forward(tf.zeros((3, 1, 2)), 1.0, 0.0, taps=1)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="taps to be at most 65536"):
        forward(tf.zeros((1, 65_537, 1)), 1.0, 0.0, taps=65_537)


def ops_of(layer, shape):
    traced = tf.function(layer).get_concrete_function(tf.TensorSpec(shape))
    return [op.type for op in traced.graph.get_operations()]


@pytest.mark.parametrize(
    "kind, data_format, shape",
    [
        ("spatial", "channels_last", (None, None, 5, 18)),
        ("spatial", "channels_first", (None, 18, None, 5)),
        ("channel", "channels_last", (None, 3, 3, 24)),
    ],
)
def test_layers_use_it_where_it_is(kind, data_format, shape, compiled):
    layer = FilterNorm(kind, data_format=data_format)
    filters = filters_of([size or 4 for size in shape], "float32")
    with keras_dynfilter.implementation("native"):
        outputs = layer(filters)
        assert "KerasDynfilter>NormalizeFilters" in ops_of(layer, shape)
    with keras_dynfilter.implementation("composite"):
        np.testing.assert_allclose(layer(filters), outputs, rtol=1e-4, atol=1e-5)
        assert not any("KerasDynfilter" in op for op in ops_of(layer, shape))


def test_module_normalises_both_kinds(compiled):
    layer = DDF2D(3)
    layer.build((None, 8, 8, 16))
    with keras_dynfilter.implementation("native"):
        assert ops_of(layer, (2, 8, 8, 16)).count("KerasDynfilter>NormalizeFilters") == 2
