# SPDX-License-Identifier: Apache-2.0
"""Tests empty tensors, infinities and NaN. Taps outside the image are skipped; all other results follow IEEE 754."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases, reference

pytestmark = pytest.mark.legacy

EVERY_OP = pytest.mark.parametrize("op", cases.OPS.values(), ids=cases.OPS)


@pytest.fixture
def run(implementation, mode, request):
    """Returns a function that runs a given function with the implementation and in the mode of the test."""
    if mode == "xla" and implementation == "native":
        request.getfixturevalue("native_xla")
    return lambda function, tensors: cases.run(function, tensors, mode, implementation)


def output_and_gradients(op, case):
    def function(*tensors):
        return cases.apply(op, case, tensors[:-1]), cases.gradients(op, case, tensors[:-1], tensors[-1])

    return function


def parametrize(*test_cases, compiled=(), xla_marks=()):
    """Runs a test for the cases, eagerly and under XLA.

    XLA compiles the composite only for the cases named in `compiled`, because this takes long.
    """
    rows = [(case, "eager", implementation, ()) for case in test_cases for implementation in ("native", "composite")]
    rows += [(case, "xla", "native", xla_marks) for case in test_cases]
    rows += [(case, "xla", "composite", xla_marks) for case in test_cases if case.name in compiled]
    return pytest.mark.parametrize(
        "case, mode, implementation",
        [
            pytest.param(case, mode, implementation, marks=marks, id=f"{case.name}-{mode}-{implementation}")
            for case, mode, implementation, marks in rows
        ],
        indirect=["implementation"],
    )


@EVERY_OP
@parametrize(
    cases.Case("batch", (0, 4, 5, 6), heads=2),
    cases.Case("height", (2, 0, 5, 6), strides=(2, 1)),
    cases.Case("width_valid", (2, 4, 0, 3), padding="valid"),
    cases.Case("channels", (2, 4, 5, 0), heads=2),
    cases.Case("maps", (2, 4, 5, 3), maps=0),
    cases.Case("result", (2, 3, 3, 16), (5, 5), padding="valid"),
    cases.Case("everything", (0, 0, 0, 0)),
    compiled=("batch", "width_valid"),
)
def test_empty(op, case, run):
    tensors = cases.tensors(cases.operands(op, case), "float32")
    output, gradients = run(output_and_gradients(op, case), [*tensors, tf.ones(case.output_shape(op))])
    assert output.shape == case.output_shape(op)
    for tensor, gradient in zip(tensors, gradients):
        assert gradient.shape == tensor.shape
        if tf.size(output) == 0:  # No output depends on the operands.
            np.testing.assert_array_equal(gradient, np.zeros(tensor.shape))


BORDERS = (
    cases.Case("one_head", (1, 5, 6, 3)),
    cases.Case("lanes_of_channels", (1, 4, 5, 17), strides=(2, 1)),
    cases.Case("heads", (1, 5, 4, 16), dilation_rate=(2, 1), heads=2),
    cases.Case("one_channel", (1, 4, 19, 1), (3, 5)),
    cases.Case("window_beyond_image", (1, 2, 3, 4), (5, 7), heads=4),
)


def is_outside(case):
    """Returns a mask in the shape of the spatial filters, which is true for taps outside the image."""
    mask = np.ones((*case.out_size, case.heads, *case.kernel_size), bool)
    for _, i, j, u, v, _, _ in reference.taps_inside((1, *case.shape[1:]), **case.geometry):
        mask[i, j, :, u, v] = False
    return np.broadcast_to(mask.reshape(1, *case.out_size, -1), case.operand_shape("spatial"))


@pytest.mark.parametrize("name", ["local_filter2d", "ddf2d_mul", "ddf2d_add"])
@parametrize(*BORDERS, compiled=("heads", "window_beyond_image"))
def test_spatial_taps_outside_are_skipped(name, case, run):
    """Results and gradients do not depend on the values of taps outside the image, here infinities and NaN."""
    op = cases.OPS[name]
    truth = cases.truth(op, case)
    arrays = cases.operands(op, case)
    spatial, outside = op.roles.index("spatial"), is_outside(case)
    arrays[spatial][outside] = np.resize([np.inf, -np.inf, np.nan], outside.sum())
    tensors = cases.tensors([*arrays, truth.upstream], "float32")
    output, gradients = run(output_and_gradients(op, case), tensors)
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, "float32")
    for (name, _), actual, expected, scale in zip(op.operands, gradients, truth.gradients, truth.gradient_scales):
        assert np.all(np.isfinite(actual)), f"gradient with respect to {name}"
        cases.assert_close(actual, expected, scale, truth.terms, "float32")


# Logits are left out, because a softmax turns infinity into NaN; `test_masked_logits` tests minus infinity.
OP_AND_ROLE = [
    pytest.param(op, role, id=f"{op.name}-{role}")
    for op in cases.OPS.values()
    if op.kind
    for role in op.roles
    if (op.kind, role) != ("softmax", "spatial")
]


@pytest.mark.parametrize("op, role", OP_AND_ROLE)
@pytest.mark.parametrize("value", [np.inf, np.nan])
@parametrize(*BORDERS[:4], compiled=("one_head",), xla_marks=pytest.mark.slow)
def test_special_values_affect_what_depends_on_them(op, role, value, case, run):
    """With two elements infinite or NaN, results are finite, infinite or NaN where the reference results are."""
    arrays = cases.operands(op, case)
    flat = arrays[op.roles.index(role)].reshape(-1)
    flat[0] = flat[flat.size // 2] = value
    expected, expected_gradients, upstream = reference_results(op, case, arrays)
    output, gradients = run(output_and_gradients(op, case), cases.tensors([*arrays, upstream], "float64"))
    np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-9)
    for (name, _), actual, wanted in zip(op.operands, gradients, expected_gradients):
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9, err_msg=f"gradient with respect to {name}")


def reference_results(op, case, arrays):
    """Returns the output, the gradients and the upstream gradient."""
    upstream = cases.values(case.output_shape(op), "grad")
    geometry = dict(case.geometry, heads=case.heads)
    factors = cases.factors(op, arrays)
    with np.errstate(invalid="ignore"):
        output = reference.filter2d(*factors, op.kind, **geometry)
        gradients = cases.in_order(op, reference.filter2d_gradients(*factors, op.kind, upstream, **geometry))
    return output, gradients, upstream


def test_masked_logits(implementation):
    """Taps whose logit is minus infinity have no effect and a gradient of zero."""
    op, case = cases.OPS["local_filter2d_softmax"], cases.BY_NAME["plain"]
    inputs, logits = cases.operands(op, case)
    logits[..., ::2] = -np.inf
    tensors = cases.tensors([inputs, logits], "float64")
    with keras_dynfilter.implementation(implementation):
        actual = cases.apply(op, case, tensors)
        gradients = cases.gradients(op, case, tensors, tf.ones_like(actual))
    expected, _, _ = reference_results(op, case, [inputs, logits])
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][..., ::2], np.zeros_like(logits[..., ::2]))


def test_large_logits(implementation):
    """A softmax subtracts the largest logit first, so the exponentials do not overflow."""
    op, case = cases.OPS["local_filter2d_softmax"], cases.BY_NAME["plain"]
    inputs, logits = cases.operands(op, case)
    for shift in (3e4, -3e4):
        with keras_dynfilter.implementation(implementation):
            shifted = cases.apply(op, case, cases.tensors([inputs, logits * 64 + shift], "float32"))
            plain = cases.apply(op, case, cases.tensors([inputs, logits * 64], "float32"))
        np.testing.assert_allclose(shifted, plain, rtol=1e-5, atol=1e-5)
