# SPDX-License-Identifier: Apache-2.0
"""First-order gradients of the public functions: against the oracle, and against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

EVERY_CASE = pytest.mark.parametrize("case", cases.CASES, ids=cases.IDS)
SOME_CASES = cases.parametrize("plain", "unequal_strides", "two_heads_of_16", "everything_at_once", "everything_valid")


@pytest.fixture(params=cases.OPS)
def op(request):
    return cases.OPS[request.param]


def check(op, case, implementation, dtype="float32", mode="eager", data_format="channels_last"):
    truth = cases.truth(op, case)
    tensors = cases.tensors(truth.operands, dtype)
    (grad,) = cases.tensors([truth.grad], dtype)
    results = cases.run(
        lambda *given: cases.gradients(op, case, given[:-1], given[-1], data_format),
        [*tensors, grad],
        mode,
        implementation,
    )
    for (name, _), actual, expected, scale in zip(op.operands, results, truth.gradients, truth.gradient_scales):
        try:
            cases.assert_close(actual, expected, scale, truth.terms, dtype)
        except AssertionError as error:
            raise AssertionError(f"gradient by {name}: {error}") from error


@EVERY_CASE
def test_eager(op, case, implementation, dtype):
    check(op, case, implementation, dtype)


@SOME_CASES
def test_layout(op, case, implementation, data_format):
    check(op, case, implementation, "float64", data_format=data_format)


@EVERY_CASE
def test_graph_native(op, case, native_library):
    check(op, case, "native", mode="function")


@EVERY_CASE
def test_xla_native(op, case, native_xla):
    check(op, case, "native", mode="xla")


@SOME_CASES
def test_graph_composite(op, case):
    check(op, case, "composite", mode="function")


@cases.parametrize("plain", "everything_at_once")
def test_xla_composite(op, case):
    check(op, case, "composite", mode="xla")


@cases.parametrize("two_heads_of_16")
def test_xla_dtypes(op, case, xla_implementation, dtype):
    check(op, case, xla_implementation, dtype, mode="xla")


@cases.parametrize("everything_at_once")
def test_traced_with_unknown_sizes(op, case, implementation):
    truth = cases.truth(op, case)
    arrays = [*truth.operands, truth.grad]
    shapes = [cases.unknown_sizes(array.shape, kind) for array, kind in zip(arrays, (*op.kinds, "inputs"))]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64) for shape in shapes])
    def function(*given):
        return cases.gradients(op, case, given[:-1], given[-1])

    with keras_dynfilter.implementation(implementation):
        results = function(*cases.tensors(arrays, "float64"))
    for actual, expected, scale in zip(results, truth.gradients, truth.gradient_scales):
        cases.assert_close(actual, expected, scale, truth.terms, "float64")


SMALL = (
    cases.Case("small", (2, 3, 4, 2), (3, 3), maps=2),
    cases.Case("small_strides_dilation", (1, 5, 4, 4), (3, 1), (2, 3), (2, 1), heads=2, maps=1),
    cases.Case("small_valid", (1, 4, 5, 2), (1, 3), (1, 2), padding="valid", heads=2, maps=3),
)


@pytest.mark.parametrize("case", SMALL, ids=[case.name for case in SMALL])
def test_finite_differences(op, case, implementation):
    tensors = cases.tensors(cases.operands(op, case), "float64")
    function = tf.function(lambda *given: cases.apply(op, case, given))
    with keras_dynfilter.implementation(implementation):
        analytic, numeric = tf.test.compute_gradient(function, tensors, delta=2.0**-12)
    # Differences of a multilinear function are exact; those of the softmax have an error of delta squared.
    tolerance = 1e-6 if op.weight == "softmax" else 1e-10
    for (name, _), one, other in zip(op.operands, analytic, numeric):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=f"gradient by {name}")


def test_unused_operands_cost_nothing(op, implementation):
    """A gradient by one operand only is the same as that among all of them."""
    case = cases.BY_NAME["everything_at_once"]
    truth = cases.truth(op, case)
    for index, (expected, scale) in enumerate(zip(truth.gradients, truth.gradient_scales)):
        tensors = cases.tensors(truth.operands, "float64")
        with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
            tape.watch(tensors[index])
            output = cases.apply(op, case, tensors)
        gradient = tape.gradient(output, tensors[index], output_gradients=tf.constant(truth.grad))
        cases.assert_close(gradient, expected, scale, truth.terms, "float64")
