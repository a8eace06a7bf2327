# SPDX-License-Identifier: Apache-2.0
"""Compares first-order gradients of the public ops with the reference implementation and with finite differences."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

EVERY_CASE = pytest.mark.parametrize("case", cases.CASES, ids=cases.IDS)


@pytest.fixture(params=cases.OPS)
def op(request):
    return cases.OPS[request.param]


def check(op, case, implementation, dtype="float32", mode="eager", data_format="channels_last"):
    truth = cases.truth(op, case)
    tensors = cases.tensors([*truth.operands, truth.upstream], dtype)

    def function(*tensors):
        return cases.gradients(op, case, tensors[:-1], tensors[-1], data_format)

    results = cases.run(function, tensors, mode, implementation)
    for (name, _), actual, expected, scale in zip(op.operands, results, truth.gradients, truth.gradient_scales):
        try:
            cases.assert_close(actual, expected, scale, truth.terms, dtype)
        except AssertionError as error:
            raise AssertionError(f"gradient with respect to {name}: {error}") from error


@EVERY_CASE
def test_native(op, case, dtype, native_library):
    """Every geometry is tested with every dtype, because both determine the CPU kernel."""
    check(op, case, "native", dtype)


@EVERY_CASE
def test_composite(op, case):
    check(op, case, "composite")


@cases.parametrize_all(*cases.REPRESENTATIVE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_composite_dtypes(op, case, dtype):
    """A few fast cases suffice: after the first step, a cast to float32 or float64, the dtype makes no difference."""
    check(op, case, "composite", dtype)


@cases.parametrize("everything_at_once")
def test_channels_first(op, case, implementation, dtype):
    check(op, case, implementation, dtype, data_format="channels_first")


@cases.parametrize_all("plain", "everything_valid")
def test_channels_first_geometries(op, case, implementation):
    check(op, case, implementation, "float64", data_format="channels_first")


@cases.parametrize_all(*cases.REPRESENTATIVE)
def test_graph(op, case, implementation):
    check(op, case, implementation, mode="function")


@cases.parametrize_all(*cases.EXTENDED)
def test_xla_native(op, case, native_xla):
    check(op, case, "native", mode="xla")


@cases.parametrize_all("plain", "everything_at_once")
def test_xla_composite(op, case):
    check(op, case, "composite", mode="xla")


@cases.parametrize("two_heads_of_16")
def test_xla_native_dtypes(op, case, dtype, native_xla):
    check(op, case, "native", dtype, mode="xla")


@cases.parametrize("two_heads_of_16")
def test_xla_composite_bfloat16(op, case):
    check(op, case, "composite", "bfloat16", mode="xla")


@cases.parametrize("everything_at_once")
def test_traced_with_unknown_sizes(op, case, implementation):
    truth = cases.truth(op, case)
    arrays = [*truth.operands, truth.upstream]
    shapes = [cases.unknown_sizes(array.shape, role) for array, role in zip(arrays, (*op.roles, "inputs"))]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64) for shape in shapes])
    def function(*tensors):
        return cases.gradients(op, case, tensors[:-1], tensors[-1])

    with keras_dynfilter.implementation(implementation):
        results = function(*cases.tensors(arrays, "float64"))
    for actual, expected, scale in zip(results, truth.gradients, truth.gradient_scales):
        cases.assert_close(actual, expected, scale, truth.terms, "float64")


SMALL = (
    cases.Case("small", (2, 3, 4, 2), (3, 3), maps=2),
    cases.Case("small_strides_dilation", (1, 5, 4, 4), (3, 1), (2, 3), (2, 1), heads=2, maps=1),
    cases.Case("small_valid", (1, 4, 5, 2), (1, 3), (1, 2), padding="valid", heads=2, maps=3),
)


@pytest.mark.parametrize(
    "case, implementation",
    # One case for the composite: TensorFlow differentiates all its forms except `canvas`, which this case uses.
    [*((case, "native") for case in SMALL), (SMALL[0], "composite")],
    ids=lambda value: getattr(value, "name", value),
    indirect=["implementation"],
)
def test_finite_differences(op, case, implementation):
    tensors = cases.tensors(cases.operands(op, case), "float64")
    function = tf.function(lambda *tensors: cases.apply(op, case, tensors))
    with keras_dynfilter.implementation(implementation):
        analytic, numeric = tf.test.compute_gradient(function, tensors, delta=2.0**-12)
    # Finite differences of a multilinear function are exact. For the softmax, their error is of order delta squared.
    tolerance = 1e-6 if op.kind == "softmax" else 1e-10
    for (name, _), actual, expected in zip(op.operands, analytic, numeric):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=f"with respect to {name}")


def test_gradient_of_one_operand_alone(op, implementation):
    """The gradient with respect to one operand is right if no other gradient is computed."""
    case = cases.BY_NAME["everything_at_once"]
    truth = cases.truth(op, case)
    for index, (expected, scale) in enumerate(zip(truth.gradients, truth.gradient_scales)):
        tensors = cases.tensors(truth.operands, "float64")
        with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
            tape.watch(tensors[index])
            output = cases.apply(op, case, tensors)
        gradient = tape.gradient(output, tensors[index], output_gradients=tf.constant(truth.upstream))
        cases.assert_close(gradient, expected, scale, truth.terms, "float64")
