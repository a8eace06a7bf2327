# SPDX-License-Identifier: Apache-2.0
"""Empty tensors, and what infinities and NaN do: taps outside the image are skipped, the others follow IEEE 754."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases, reference

pytestmark = pytest.mark.legacy

FAMILY = pytest.mark.parametrize("op", [cases.OPS[name] for name in cases.FAMILY], ids=cases.FAMILY)
EVERY_OP = pytest.mark.parametrize("op", cases.OPS.values(), ids=cases.OPS)
RUNS = pytest.mark.parametrize("mode", cases.MODES)


@pytest.fixture
def runner(implementation, mode, request):
    """Function that runs another with the implementation and in the mode of the test."""
    if mode == "xla" and implementation == "native":
        request.getfixturevalue("native_xla")
    return lambda function, arguments: cases.run(function, arguments, mode, implementation)


EMPTY = (
    cases.Case("batch", (0, 4, 5, 6), heads=2),
    cases.Case("height", (2, 0, 5, 6), strides=(2, 1)),
    cases.Case("width_valid", (2, 4, 0, 3), padding="valid"),
    cases.Case("channels", (2, 4, 5, 0), heads=2),
    cases.Case("maps", (2, 4, 5, 3), maps=0),
    cases.Case("result", (2, 3, 3, 16), (5, 5), padding="valid"),
    cases.Case("everything", (0, 0, 0, 0)),
)


@EVERY_OP
@RUNS
@pytest.mark.parametrize("case", EMPTY, ids=[case.name for case in EMPTY])
def test_empty(op, case, runner):
    tensors = cases.tensors(cases.operands(op, case), "float32")
    grad = tf.ones(case.output_shape(op))
    output = runner(lambda *given: cases.apply(op, case, given), tensors)
    assert output.shape == case.output_shape(op)
    results = runner(lambda *given: cases.gradients(op, case, given[:-1], given[-1]), [*tensors, grad])
    for tensor, result in zip(tensors, results):
        assert result.shape == tensor.shape
        if tf.size(output) == 0:  # nothing depends on the operands
            np.testing.assert_array_equal(result, np.zeros(tensor.shape))


BORDERS = (
    cases.Case("one_head", (1, 5, 6, 3)),
    cases.Case("lanes_of_channels", (1, 4, 5, 17), strides=(2, 1)),
    cases.Case("heads", (1, 5, 4, 16), dilation_rate=(2, 1), heads=2),
    cases.Case("one_channel", (1, 4, 19, 1), (3, 5)),
    cases.Case("window_beyond_image", (1, 2, 3, 4), (5, 7), heads=4),
)


def outside(case):
    """Mask of the shape of the spatial filters: the tap lies outside the image."""
    mask = np.ones((*case.out_size, case.heads, *case.kernel_size), bool)
    for _, i, j, u, v, _, _ in reference.taps_inside((1, *case.shape[1:]), **case.geometry):
        mask[i, j, :, u, v] = False
    return np.broadcast_to(mask.reshape(1, *case.out_size, -1), case.operand_shape("spatial"))


def poisoned(op, case, value):
    """Operands whose spatial filters hold `value` at every tap outside the image."""
    arrays = cases.operands(op, case)
    spatial = op.kinds.index("spatial")
    arrays[spatial] = np.where(outside(case), value, arrays[spatial])
    return arrays


@pytest.mark.parametrize("name", ["local_filter2d", "ddf2d_mul", "ddf2d_add"])
@RUNS
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("case", BORDERS, ids=[case.name for case in BORDERS])
def test_spatial_taps_outside_are_skipped(name, case, value, runner):
    """Nothing changes, forward or backward, whatever the filters hold where there is no pixel."""
    op = cases.OPS[name]
    truth = cases.truth(op, case)
    tensors = cases.tensors(poisoned(op, case, value), "float32")
    grad = cases.tensors([truth.grad], "float32")

    def everything(*given):
        return cases.apply(op, case, given[:-1]), cases.gradients(op, case, given[:-1], given[-1])

    output, gradients = runner(everything, [*tensors, *grad])
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, "float32")
    for (name, _), actual, expected, scale in zip(op.operands, gradients, truth.gradients, truth.gradient_scales):
        assert np.all(np.isfinite(actual)), f"gradient by {name}"
        cases.assert_close(actual, expected, scale, truth.terms, "float32")


@pytest.mark.slow  # hundreds of them
@FAMILY
@RUNS
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("kind", ["inputs", "spatial", "channel"])
@pytest.mark.parametrize("case", BORDERS[:4], ids=[case.name for case in BORDERS[:4]])
def test_special_values_reach_exactly_what_they_touch(op, case, kind, value, runner):
    """One infinite (or NaN) element of an operand: finite, infinite and NaN results are where the formula has them."""
    if kind not in op.kinds or (op.weight == "softmax" and kind == "spatial"):
        pytest.skip("not an operand, or one of which the softmax makes NaN")
    arrays = [array.copy() for array in cases.operands(op, case)]
    flat = arrays[op.kinds.index(kind)].reshape(-1)
    flat[0] = flat[flat.size // 2] = value
    expected_output, expected_gradients, grad = oracle(op, case, arrays)
    tensors = cases.tensors([*arrays, grad], "float64")

    def everything(*given):
        return cases.apply(op, case, given[:-1]), cases.gradients(op, case, given[:-1], given[-1])

    output, gradients = runner(everything, tensors)
    np.testing.assert_allclose(output, expected_output, rtol=1e-9, atol=1e-9)
    for (name, _), actual, expected in zip(op.operands, gradients, expected_gradients):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=f"gradient by {name}")


def oracle(op, case, arrays):
    grad = cases.values(case.output_shape(op), "grad")
    geometry = dict(case.geometry, heads=case.heads)
    factors = cases.factors(op, arrays)
    with np.errstate(invalid="ignore"):
        output = reference.filter2d(*factors, op.weight, **geometry)
        gradients = cases.in_order(op, reference.filter2d_gradients(*factors, op.weight, grad, **geometry))
    return output, gradients, grad


def test_masked_logits(implementation):
    """Logits of minus infinity switch taps off."""
    case = cases.BY_NAME["plain"]
    op = cases.OPS["local_filter2d_softmax"]
    inputs, logits = cases.operands(op, case)
    logits[..., ::2] = -np.inf
    with keras_dynfilter.implementation(implementation):
        actual = cases.apply(op, case, cases.tensors([inputs, logits], "float64"))
        gradients = cases.gradients(op, case, cases.tensors([inputs, logits], "float64"), tf.ones_like(actual))
    expected, _, _ = oracle(op, case, [inputs, logits])
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][..., ::2], np.zeros_like(logits[..., ::2]))


def test_large_logits(implementation):
    """The largest logit is subtracted first, so that none overflows."""
    case = cases.BY_NAME["plain"]
    op = cases.OPS["local_filter2d_softmax"]
    inputs, logits = cases.operands(op, case)
    for shift in (3e4, -3e4):
        with keras_dynfilter.implementation(implementation):
            shifted = cases.apply(op, case, cases.tensors([inputs, logits * 64 + shift], "float32"))
            plain = cases.apply(op, case, cases.tensors([inputs, logits * 64], "float32"))
        np.testing.assert_allclose(shifted, plain, rtol=1e-5, atol=1e-5)
