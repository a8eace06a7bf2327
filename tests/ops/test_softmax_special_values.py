# SPDX-License-Identifier: Apache-2.0
"""Logits that are infinite or NaN: exactly what depends on their filter is NaN, in every implementation and order."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import local_filter2d
from tests.support import cases, reference

pytestmark = pytest.mark.legacy

# Composite forms and CPU kernels differ with the number of channels per head.
CASES = (
    cases.Case("one_channel", (1, 4, 5, 1)),
    cases.Case("few_channels", (2, 4, 5, 4), heads=2),
    cases.Case("many_channels", (1, 5, 4, 34), (3, 5), strides=(2, 1), heads=2),
    cases.Case("valid", (1, 6, 7, 3), dilation_rate=(2, 1), padding="valid"),
)
# The taps of the filter that change, and their logits; None: all taps. The first row of the window is outside the
# image for most cases.
LOGITS = {
    "nan": ((4, np.nan),),
    "nan outside": ((0, np.nan),),
    "inf": ((4, np.inf),),
    "inf outside": ((0, np.inf),),
    "two inf": ((3, np.inf), (5, np.inf)),
    "inf and minus inf": ((3, np.inf), (5, -np.inf)),
    "nan and inf": ((3, np.nan), (5, np.inf)),
    "nan and minus inf": ((3, np.nan), (5, -np.inf)),
    "minus inf everywhere": ((None, -np.inf),),
    "minus inf everywhere but for a nan": ((None, -np.inf), (4, np.nan)),
}
FILTER = (0, 0, 1, -1)  # sample, row, column and head


def operands(case, logits):
    """Returns inputs, logits, the upstream gradient, and the upstream gradients of the first-order gradients."""
    op = cases.OPS["local_filter2d_softmax"]
    inputs, spatial = cases.operands(op, case)
    by_head = spatial.reshape(*spatial.shape[:3], case.heads, -1)  # a view
    for tap, value in LOGITS[logits]:
        by_head[FILTER][tap if tap is not None else slice(None)] = value
    upstream = cases.values(case.output_shape(op), "grad")
    return inputs, spatial, upstream, cases.values(inputs.shape, "inputs"), cases.values(spatial.shape, "spatial")


def results(case, tensors):
    """Returns the output, the gradients, and the gradients of their sum by inputs, logits and upstream gradient."""
    inputs, logits, upstream, *factors = tensors
    with tf.GradientTape() as outer:
        outer.watch([inputs, logits, upstream])
        with tf.GradientTape() as inner:
            inner.watch([inputs, logits])
            output = local_filter2d(
                inputs, logits, case.kernel_size, heads=case.heads, normalization="softmax", **case.window
            )
        gradients = inner.gradient(output, [inputs, logits], output_gradients=upstream)
        total = sum(tf.reduce_sum(gradient * factor) for gradient, factor in zip(gradients, factors))
    return [output, *gradients, *outer.gradient(total, [inputs, logits, upstream])]


def affected(case):
    """Returns which outputs, inputs and logits depend on the filter, as boolean arrays."""
    sample, row, column, head = FILTER
    channels = np.zeros(case.shape[3], bool)
    np.split(channels, case.heads)[head][:] = True  # a view
    output = np.zeros((case.shape[0], *case.out_size, case.shape[3]), bool)
    output[sample, row, column] = channels
    inputs = np.zeros(case.shape, bool)
    for n, i, j, _, _, y, x in reference.taps_inside(case.shape, **case.geometry):
        if (n, i, j) == (sample, row, column):
            inputs[n, y, x] = channels
    logits = np.zeros(case.operand_shape("spatial"), bool)
    logits.reshape(*logits.shape[:3], case.heads, -1)[FILTER] = True
    return output, inputs, logits


NAMES = ("output", "inputs", "logits", "second order, inputs", "second order, logits", "second order, upstream")


def check(case, actual):
    output, inputs, logits = affected(case)
    for name, value, expected in zip(NAMES, actual, (output, inputs, logits, inputs, logits, output)):
        np.testing.assert_array_equal(np.isnan(value), expected, err_msg=name)
        assert np.isfinite(value[~expected]).all(), name


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eager(case, logits, dtype, implementation):
    with keras_dynfilter.implementation(implementation):
        actual = results(case, cases.tensors(operands(case, logits), dtype))
    check(case, [value.numpy() for value in actual])


@pytest.mark.parametrize("mode", ["function", "xla"])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.name == "few_channels" else pytest.mark.slow, id=case.name) for case in CASES],
)
def test_compiled(case, mode, xla_implementation):
    """One function serves all logits, so that it is compiled once."""
    compiled = tf.function(lambda *tensors: results(case, tensors), jit_compile=mode == "xla")
    with keras_dynfilter.implementation(xla_implementation):
        for logits in LOGITS:
            check(case, [value.numpy() for value in compiled(*cases.tensors(operands(case, logits), "float32"))])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("logits", LOGITS)
def test_reference(case, logits):
    """The reference implementation, which computes no second order, agrees."""
    inputs, spatial, upstream, *_ = operands(case, logits)
    geometry = dict(case.geometry, heads=case.heads)
    with np.errstate(invalid="ignore"):
        output = reference.filter2d(inputs, spatial, None, "softmax", **geometry)
        gradients = reference.filter2d_gradients(inputs, spatial, None, "softmax", upstream, **geometry)
    check(case, [output, *gradients[:2]])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_infinite_upstream_gradient(case, implementation):
    """Taps outside the image have the upstream gradient 0, not infinity times a pixel of the padding."""
    inputs, logits, upstream, *_ = cases.tensors(operands(case, "nan"), "float64")
    logits = tf.where(tf.math.is_nan(logits), tf.zeros_like(logits), logits)
    inputs = tf.abs(inputs) + 1  # all products with infinity have one sign
    sample, row, column, head = FILTER
    infinite = upstream.numpy()
    np.split(infinite[sample, row, column], case.heads)[head][0] = np.inf  # a view
    with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
        tape.watch(logits)
        output = local_filter2d(
            inputs, logits, case.kernel_size, heads=case.heads, normalization="softmax", **case.window
        )
    gradient = tape.gradient(output, logits, output_gradients=infinite).numpy()
    by_head = gradient.reshape(*gradient.shape[:3], case.heads, -1)
    inside = np.zeros(by_head.shape[-1], bool)
    for n, i, j, u, v, *_ in reference.taps_inside(case.shape, **case.geometry):
        if (n, i, j) == (sample, row, column):
            inside[u * case.kernel_size[1] + v] = True
    np.testing.assert_array_equal(by_head[FILTER], np.where(inside, np.nan, -np.inf))
    by_head[FILTER] = 0
    assert np.isfinite(by_head).all()
