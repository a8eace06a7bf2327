# SPDX-License-Identifier: Apache-2.0
"""Gradients of gradients: finite differences, agreement of implementations, and third derivatives in closed form."""

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
    """Function of the operands and an output gradient: all gradients, in one vector."""

    def function(*given):
        results = cases.gradients(op, case, given[:-1], given[-1])
        return tf.concat([tf.reshape(result, [-1]) for result in results], axis=0)

    return function


def operands_and_grad(op, case, dtype):
    truth = cases.truth(op, case)
    return cases.tensors([*truth.operands, truth.grad], dtype)


def second_order(op, case, given, mode="eager"):
    """Gradients of a random combination of all first-order gradients, by every operand and the output gradient."""
    function = flat_gradients(op, case)
    size = sum(np.prod(value.shape) for value in given[:-1])
    (weights,) = cases.tensors([cases.values((size,), "second")], given[0].dtype)

    def gradient(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = function(*given)
        return tape.gradient(total, given, output_gradients=weights, unconnected_gradients="zero")

    if mode != "eager":
        gradient = tf.function(gradient, jit_compile=mode == "xla")
    return gradient(*given)


def test_finite_differences(op, implementation):
    given = operands_and_grad(op, SMALL, "float64")
    function = tf.function(flat_gradients(op, SMALL))
    with keras_dynfilter.implementation(implementation):
        analytic, numeric = tf.test.compute_gradient(function, given, delta=2.0**-12)
    tolerance = 1e-5 if op.weight == "softmax" else 1e-9
    names = [name for name, _ in op.operands] + ["grad"]
    for name, one, other in zip(names, analytic, numeric):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=f"second order, by {name}")


@cases.parametrize("plain", "unequal_strides", "two_heads_of_16", "everything_at_once", "everything_valid", "one_pixel")
@pytest.mark.parametrize("name", cases.FAMILY)
def test_native_as_composite(name, case, native_library):
    op = cases.OPS[name]
    given = operands_and_grad(op, case, "float64")
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, given)
    for mode in ("eager", "function"):
        with keras_dynfilter.implementation("native"):
            actual = second_order(op, case, given, mode)
        for one, other in zip(actual, expected):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.abs(other).max(), err_msg=mode)


@pytest.mark.parametrize("dtype,tolerance", [("float16", 0.02), ("bfloat16", 0.15), ("float32", 1e-5)])
def test_dtypes(op, implementation, dtype, tolerance):
    """Half types round the first gradients, which the second go through; so the bound is one of the whole."""
    case = cases.BY_NAME["everything_at_once"]
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, operands_and_grad(op, case, "float64"))
    with keras_dynfilter.implementation(implementation):
        actual = second_order(op, case, operands_and_grad(op, case, dtype))
    for one, other in zip(actual, expected):
        assert one.dtype == tf.as_dtype(dtype)
        one = tf.cast(one, tf.float64)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("name", cases.FAMILY)
def test_xla(name, xla_implementation):
    op, case = cases.OPS[name], cases.BY_NAME["plain"]
    given = operands_and_grad(op, case, "float64")
    with keras_dynfilter.implementation("composite"):
        expected = second_order(op, case, given)
    with keras_dynfilter.implementation(xla_implementation):
        actual = second_order(op, case, given, "xla")
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.abs(other).max())


@cases.parametrize("plain", "everything_at_once", "everything_valid")
def test_third_derivative(case, implementation):
    """Along a line, `<grad, ddf2d>` is a cubic polynomial whose third derivative is 6 times its leading coefficient."""
    op = cases.OPS["ddf2d_mul"]
    *start, grad = operands_and_grad(op, case, "float64")
    direction = cases.tensors(cases.operands(op, case, key="direction"), "float64")
    t = tf.constant(0.25, tf.float64)
    with keras_dynfilter.implementation(implementation):
        with tf.GradientTape() as third:
            third.watch(t)
            with tf.GradientTape() as second:
                second.watch(t)
                with tf.GradientTape() as first:
                    first.watch(t)
                    point = [a + t * b for a, b in zip(start, direction)]
                    value = tf.reduce_sum(grad * cases.apply(op, case, point))
                slope = first.gradient(value, t)
            curvature = second.gradient(slope, t)
        result = third.gradient(curvature, t)
        expected = 6 * tf.reduce_sum(grad * cases.apply(op, case, direction))
    np.testing.assert_allclose(result, expected, rtol=1e-10)


def test_softmax_third_derivative(implementation):
    """The third derivative along a line, against a central difference of the second."""
    op, case = cases.OPS["local_filter2d_softmax"], SMALL
    *start, grad = operands_and_grad(op, case, "float64")
    direction = cases.tensors(cases.operands(op, case, key="direction"), "float64")

    @tf.function
    def derivatives(t):
        with tf.GradientTape() as third:
            third.watch(t)
            with tf.GradientTape() as second:
                second.watch(t)
                with tf.GradientTape() as first:
                    first.watch(t)
                    point = [a + t * b for a, b in zip(start, direction)]
                    value = tf.reduce_sum(grad * cases.apply(op, case, point))
                slope = first.gradient(value, t)
            curvature = second.gradient(slope, t)
        return curvature, third.gradient(curvature, t)

    delta = 2.0**-12
    with keras_dynfilter.implementation(implementation):
        above, below = (derivatives(tf.constant(t, tf.float64))[0] for t in (0.25 + delta, 0.25 - delta))
        result = derivatives(tf.constant(0.25, tf.float64))[1]
    np.testing.assert_allclose(result, (above - below) / (2 * delta), rtol=1e-5)
