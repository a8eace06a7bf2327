# SPDX-License-Identifier: Apache-2.0
"""Tests laws that the ops obey for any geometry. Hypothesis draws the same examples in every run."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

bounded = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FILTER_OPS = pytest.mark.parametrize("op", [cases.OPS[name] for name in cases.FILTER_OPS], ids=cases.FILTER_OPS)
EVERY_OP = pytest.mark.parametrize("op", cases.OPS.values(), ids=cases.OPS)


@st.composite
def geometries(draw, strides=True):
    """Draws a `Case` with random sizes, window, strides, dilation, padding and heads."""

    def pair(largest):
        return draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))

    heads = draw(st.integers(1, 3))
    return cases.Case(
        "drawn",
        (draw(st.integers(1, 3)), *pair(8), heads * draw(st.sampled_from([1, 2, 3, 8, 9]))),
        tuple(2 * half - 1 for half in pair(3)),
        pair(3) if strides else (1, 1),
        pair(3),
        draw(st.sampled_from(["same", "valid"])),
        heads,
        draw(st.integers(1, 3)),
    )


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


def double(arrays):
    return cases.tensors(arrays, "float64")


@EVERY_OP
@bounded
@given(case=geometries())
def test_linear_in_each_operand(op, implementation, case):
    first, second = double(cases.operands(op, case, 1)), double(cases.operands(op, case, 2))
    with keras_dynfilter.implementation(implementation):
        for index, role in enumerate(op.roles):
            if (op.kind == "softmax" and role == "spatial") or (op.kind == "add" and role != "inputs"):
                continue

            def function(value, index=index):
                return cases.apply(op, case, [*first[:index], value, *first[index + 1 :]])

            close(
                function(2.0 * first[index] - 3.0 * second[index]),
                2.0 * function(first[index]) - 3.0 * function(second[index]),
            )


@EVERY_OP
@bounded
@given(case=geometries())
def test_gradients_are_adjoint(op, implementation, case):
    """`<upstream, J v> = <J^T upstream, v>`, where J is the Jacobian for an operand in which the op is linear."""
    operands, direction = double(cases.operands(op, case, 1)), double(cases.operands(op, case, 2))
    (upstream,) = double([cases.values(case.output_shape(op), "grad")])
    with keras_dynfilter.implementation(implementation):
        gradients = cases.gradients(op, case, operands, upstream)
        for index, role in enumerate(op.roles):
            if op.kind == "softmax" and role == "spatial":
                continue
            moved = [*operands[:index], operands[index] + direction[index], *operands[index + 1 :]]
            change = cases.apply(op, case, moved) - cases.apply(op, case, operands)
            close(tf.reduce_sum(upstream * change), tf.reduce_sum(gradients[index] * direction[index]))


@EVERY_OP
@bounded
@given(case=geometries())
def test_samples_are_independent(op, implementation, case):
    operands = double(cases.operands(op, case))
    with keras_dynfilter.implementation(implementation):
        together = cases.apply(op, case, operands)
        alone = [cases.apply(op, case, [operand[n : n + 1] for operand in operands]) for n in range(case.shape[0])]
    np.testing.assert_array_equal(together, tf.concat(alone, axis=0))


@EVERY_OP
@bounded
@given(case=geometries())
def test_layouts_are_equivalent(op, implementation, case):
    operands = cases.tensors(cases.operands(op, case), "float32")
    with keras_dynfilter.implementation(implementation):
        last, first = (cases.apply(op, case, operands, data_format) for data_format in cases.DATA_FORMATS)
    np.testing.assert_array_equal(last, first)


def depthwise(case, inputs, kernel):
    """Convolves the padded image with TensorFlow at stride 1, then selects every position that the strides reach."""
    if case.padding == "same":
        pads = [(size - 1) // 2 * dilation for size, dilation in zip(case.kernel_size, case.dilation_rate)]
        inputs = tf.pad(inputs, [[0, 0], *([pad, pad] for pad in pads), [0, 0]])
    output = tf.nn.depthwise_conv2d(inputs, kernel[..., None], [1, 1, 1, 1], "VALID", dilations=case.dilation_rate)
    return output[:, :: case.strides[0], :: case.strides[1]]


def constant_filters(case):
    """Returns a kernel `[kernel_h, kernel_w, channels]`, and channel filters that repeat it for every sample."""
    kernel = cases.values((*case.kernel_size, case.shape[3]), "kernel")
    (kernel,) = double([kernel])
    return kernel, tf.tile(kernel[None], [case.shape[0], 1, 1, 1])


@bounded
@given(case=geometries().filter(lambda case: 0 not in case.out_size))
def test_constant_filters_are_a_depthwise_convolution(implementation, case):
    (inputs,) = double([cases.values(case.shape, "inputs")])
    kernel, channel = constant_filters(case)
    spatial_shape = case.operand_shape("spatial")
    with keras_dynfilter.implementation(implementation):
        expected = depthwise(case, inputs, kernel)
        close(cases.apply(cases.OPS["dynamic_depthwise_conv2d"], case, [inputs, channel]), expected)
        zeros, ones = tf.zeros(spatial_shape, tf.float64), tf.ones(spatial_shape, tf.float64)
        close(cases.apply(cases.OPS["ddf2d_add"], case, [inputs, channel, zeros]), expected)
        close(cases.apply(cases.OPS["ddf2d_mul"], case, [inputs, channel, ones]), expected)


@bounded
@given(case=geometries())
def test_neutral_channel_filters_leave_a_local_filter(implementation, case):
    inputs, spatial = double(cases.operands(cases.OPS["local_filter2d"], case))
    shape = case.operand_shape("channel")
    with keras_dynfilter.implementation(implementation):
        expected = cases.apply(cases.OPS["local_filter2d"], case, [inputs, spatial])
        ones, zeros = tf.ones(shape, tf.float64), tf.zeros(shape, tf.float64)
        close(cases.apply(cases.OPS["ddf2d_mul"], case, [inputs, ones, spatial]), expected)
        close(cases.apply(cases.OPS["ddf2d_add"], case, [inputs, zeros, spatial]), expected)


@bounded
@given(case=geometries(), data=st.data())
def test_one_hot_filter_shifts_the_image(implementation, case, data):
    """The result of a filter that is one at one tap and zero elsewhere is the pixel under that tap."""
    tap = tuple(data.draw(st.integers(0, size - 1)) for size in case.kernel_size)
    inputs = cases.values(case.shape, "inputs")
    spatial = np.zeros((case.shape[0], *case.out_size, case.heads, *case.kernel_size))
    spatial[..., tap[0], tap[1]] = 1
    spatial = spatial.reshape(case.operand_shape("spatial"))
    with keras_dynfilter.implementation(implementation):
        actual = cases.apply(cases.OPS["local_filter2d"], case, double([inputs, spatial]))
    expected = np.zeros(actual.shape)
    for i, j in np.ndindex(*case.out_size):
        y, x = (
            position * stride + (offset - ((kernel - 1) // 2 if case.padding == "same" else 0)) * dilation
            for position, stride, offset, kernel, dilation in zip(
                (i, j), case.strides, tap, case.kernel_size, case.dilation_rate
            )
        )
        if 0 <= y < case.shape[1] and 0 <= x < case.shape[2]:
            expected[:, i, j] = inputs[:, y, x]
    np.testing.assert_array_equal(actual, expected)


@FILTER_OPS
@bounded
@given(case=geometries(), data=st.data())
def test_channels_of_a_head_are_interchangeable(op, implementation, case, data):
    order = np.arange(case.shape[3]).reshape(case.heads, -1)
    inner = data.draw(st.permutations(range(order.shape[1])))
    order = tf.constant(order[:, inner].reshape(-1))
    operands = double(cases.operands(op, case))
    permuted = [
        value if role == "spatial" else tf.gather(value, order, axis=-1) for value, role in zip(operands, op.roles)
    ]
    with keras_dynfilter.implementation(implementation):
        close(cases.apply(op, case, permuted), tf.gather(cases.apply(op, case, operands), order, axis=-1))


@pytest.mark.parametrize("name", [name for name in cases.FILTER_OPS if cases.OPS[name].takes_heads])
@bounded
@given(case=geometries())
def test_heads_are_independent(name, implementation, case):
    """Applying the op to each head separately gives the result of all heads at once."""
    op = cases.OPS[name]
    operands = double(cases.operands(op, case))
    one_head = cases.Case("one head", (*case.shape[:3], case.shape[3] // case.heads), **case.geometry)
    with keras_dynfilter.implementation(implementation):
        together = cases.apply(op, case, operands)
        parts = [tf.split(value, case.heads, axis=-1) for value in operands]
        apart = [cases.apply(op, one_head, [part[head] for part in parts]) for head in range(case.heads)]
    close(together, tf.concat(apart, axis=-1))


@FILTER_OPS
@bounded
@given(case=geometries(strides=False), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_cropping_commutes(op, implementation, case, rows, columns):
    """With padding "valid", the result for a part of the image equals that part of the result for the whole image."""
    height, width = (
        (size - 1) * dilation + extra for size, dilation, extra in zip(case.kernel_size, case.dilation_rate, (3, 4))
    )
    whole = cases.Case("whole", (case.shape[0], height + rows, width + columns, case.shape[3]), **case.geometry)
    whole = dataclasses.replace(whole, padding="valid", heads=case.heads)
    part = dataclasses.replace(whole, shape=(case.shape[0], height, width, case.shape[3]))
    operands = double(cases.operands(op, whole))
    cropped = [value if role == "channel" else value[:, rows:, columns:] for value, role in zip(operands, op.roles)]
    with keras_dynfilter.implementation(implementation):
        expected = cases.apply(op, whole, operands)[:, rows:, columns:]
        close(cases.apply(op, part, cropped), expected)
