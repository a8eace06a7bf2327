# SPDX-License-Identifier: Apache-2.0
"""Tests second and third derivatives of the public ops: finite differences, native against composite, closed forms."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

SMALL = cases.Case("small", (1, 3, 3, 4), (1, 3), (2, 1), heads=2, maps=2)


@pytest.fixture(params=cases.OPS)
def op(request):
    return cases.OPS[request.param]


def flat_gradients(op, case):
    """Returns a function that computes all gradients as one vector, from the operands and an upstream gradient."""

    def function(*tensors):
        results = cases.gradients(op, case, tensors[:-1], tensors[-1])
        return tf.concat([tf.reshape(result, [-1]) for result in results], axis=0)

    return function


def operands_and_upstream(op, case, dtype):
    truth = cases.truth(op, case)
    return cases.tensors([*truth.operands, truth.upstream], dtype)


def second_order(op, case, tensors, mode="eager"):
    """Differentiates a random combination of all first-order gradients by every operand and the upstream gradient."""
    function = flat_gradients(op, case)
    size = sum(np.prod(value.shape) for value in tensors[:-1])
    (factors,) = cases.tensors([cases.values((size,), "second")], tensors[0].dtype)

    def gradient(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            first_order = function(*tensors)
        return tape.gradient(first_order, tensors, output_gradients=factors, unconnected_gradients="zero")

    if mode != "eager":
        gradient = tf.function(gradient, jit_compile=mode == "xla")
    return gradient(*tensors)


def test_finite_differences(op, implementation):
    tensors = operands_and_upstream(op, SMALL, "float64")
    function = tf.function(flat_gradients(op, SMALL))
    with keras_dynfilter.implementation(implementation):
        analytic, numeric = tf.test.compute_gradient(function, tensors, delta=2.0**-12)
    tolerance = 1e-5 if op.kind == "softmax" else 1e-9
    names = [*(name for name, _ in op.operands), "upstream"]
    for name, actual, expected in zip(names, analytic, numeric):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=f"with respect to {name}")


@cases.parametrize("plain", "unequal_strides", "two_heads_of_16", "everything_at_once", "everything_valid", "one_pixel")
@pytest.mark.parametrize("name", cases.FILTER_OPS)
def test_native_equals_composite(name, case, native_library):
    op = cases.OPS[name]
    tensors = operands_and_upstream(op, case, "float64")
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, tensors)
    for mode in ("eager", "function") if case.name == "everything_at_once" else ("eager",):
        with keras_dynfilter.implementation("native"):
            results = second_order(op, case, tensors, mode)
        for actual, wanted in zip(results, expected):
            np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max(), err_msg=mode)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.02), ("bfloat16", 0.15), ("float32", 1e-5)])
def test_dtypes(op, implementation, dtype, tolerance):
    """Half precision also rounds the first-order gradients, so the tolerances cover the whole computation."""
    case = cases.BY_NAME["everything_at_once"]
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, operands_and_upstream(op, case, "float64"))
    with keras_dynfilter.implementation(implementation):
        results = second_order(op, case, operands_and_upstream(op, case, dtype))
    for actual, wanted in zip(results, expected):
        assert actual.dtype == tf.as_dtype(dtype)
        actual = tf.cast(actual, tf.float64)
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", cases.FILTER_OPS)
def test_channels_first(name, implementation):
    """Gradients of gradients also pass through the transpositions of the data format."""
    op, case = cases.OPS[name], cases.BY_NAME["everything_valid"]
    tensors = operands_and_upstream(op, case, "float64")

    def slopes(data_format):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            first_order = cases.gradients(op, case, tensors[:-1], tensors[-1], data_format)
            total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first_order])
        return tape.gradient(total, tensors)

    with keras_dynfilter.implementation(implementation):
        for actual, wanted in zip(slopes("channels_first"), slopes("channels_last")):
            np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.parametrize("name", cases.FILTER_OPS)
def test_xla(name, xla_implementation):
    op, case = cases.OPS[name], cases.BY_NAME["plain"]
    tensors = operands_and_upstream(op, case, "float64")
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, tensors)
    with keras_dynfilter.implementation(xla_implementation):
        results = second_order(op, case, tensors, "xla")
    for actual, wanted in zip(results, expected):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


def derivatives_along_a_line(op, case, start, direction, upstream, t):
    """Returns the second and third derivative of `<upstream, op(start + t * direction)>` at `t`."""
    with tf.GradientTape() as third:
        third.watch(t)
        with tf.GradientTape() as second:
            second.watch(t)
            with tf.GradientTape() as first:
                first.watch(t)
                point = [a + t * b for a, b in zip(start, direction)]
                value = tf.reduce_sum(upstream * cases.apply(op, case, point))
            slope = first.gradient(value, t)
        curvature = second.gradient(slope, t)
    return curvature, third.gradient(curvature, t)


@cases.parametrize("plain", "everything_at_once", "everything_valid")
def test_third_derivative(case, implementation):
    """Along a line, `<upstream, ddf2d>` is a cubic polynomial; its third derivative is 6 times a coefficient."""
    op = cases.OPS["ddf2d_mul"]
    *start, upstream = operands_and_upstream(op, case, "float64")
    direction = cases.tensors(cases.operands(op, case, key="direction"), "float64")
    with keras_dynfilter.implementation(implementation):
        _, result = derivatives_along_a_line(op, case, start, direction, upstream, tf.constant(0.25, tf.float64))
        expected = 6 * tf.reduce_sum(upstream * cases.apply(op, case, direction))
    np.testing.assert_allclose(result, expected, rtol=1e-10)


def test_softmax_third_derivative(implementation):
    """The third derivative along a line equals a central difference of the second derivative."""
    op, case = cases.OPS["local_filter2d_softmax"], SMALL
    *start, upstream = operands_and_upstream(op, case, "float64")
    direction = cases.tensors(cases.operands(op, case, key="direction"), "float64")

    @tf.function
    def derivatives(t):
        return derivatives_along_a_line(op, case, start, direction, upstream, t)

    delta = 2.0**-12
    with keras_dynfilter.implementation(implementation):
        above, below = (derivatives(tf.constant(t, tf.float64))[0] for t in (0.25 + delta, 0.25 - delta))
        result = derivatives(tf.constant(0.25, tf.float64))[1]
    np.testing.assert_allclose(result, (above - below) / (2 * delta), rtol=1e-5)
