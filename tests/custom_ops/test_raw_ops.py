# SPDX-License-Identifier: Apache-2.0
"""Every raw op and raw gradient op: results, and shapes at trace time. `test_refusals` tests bad arguments."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.support import cases, raw_ops

pytestmark = pytest.mark.legacy

EVERY_OP = pytest.mark.parametrize("op", raw_ops.OPS, ids=[f"{op.name}-{op.kind}" for op in raw_ops.OPS])


def check(op, actual, dtype="float32", case=raw_ops.CASE):
    truth, scale = raw_ops.expected(op, case)
    cases.assert_close(actual, truth, scale + 1, 200, dtype)


@EVERY_OP
def test_result(op, native_ops, dtype):
    check(op, op(native_ops, raw_ops.valid_call(op, dtype=dtype)), dtype)


UNKNOWN = {
    "all_ranks": lambda shape, index: None,
    "all_sizes": lambda shape, index: [None] * len(shape),
    "one_rank": lambda shape, index: None if index == 0 else shape,
    "other_rank": lambda shape, index: None if index == 1 else shape,
    "batches": lambda shape, index: [None, *shape[1:]] if len(shape) == 4 else shape,
    "some_sizes": lambda shape, index: [size if (a + index) % 2 else None for a, size in enumerate(shape)],
}


@EVERY_OP
@pytest.mark.parametrize("unknown", UNKNOWN)
def test_traced_with_unknown_shapes(op, unknown, native_ops):
    call = raw_ops.valid_call(op)

    @tf.function(autograph=False)
    def traced(inputs):
        return op(native_ops, raw_ops.Call(inputs, call.attributes))

    specs = {
        operand: tf.TensorSpec(
            UNKNOWN[unknown](call.inputs[operand].shape.as_list(), index), call.inputs[operand].dtype
        )
        for index, operand in enumerate(op.operands)
    }
    function = traced.get_concrete_function(specs)
    actual = function(call.inputs)
    assert function.structured_outputs.shape.rank == 4
    assert function.structured_outputs.shape.is_compatible_with(actual.shape)
    check(op, actual)


@EVERY_OP
def test_static_shape(op, native_ops):
    """If the shapes are known, the shape of the result is known too. input_size is known because it is a constant."""
    call = raw_ops.valid_call(op)
    size = raw_ops.CASE.shape[1:3]

    @tf.function(autograph=False)
    def traced(inputs):
        all_inputs = {**inputs, "input_size": tf.constant(size, tf.int64)}
        return op(native_ops, raw_ops.Call(all_inputs, call.attributes))

    function = traced.get_concrete_function({k: v for k, v in call.inputs.items() if k != "input_size"})
    assert function.structured_outputs.shape == raw_ops.expected(op)[0].shape


EMPTY = (
    cases.Case("batch", (0, 4, 5, 6), heads=2),
    cases.Case("height", (2, 0, 5, 6), heads=2),
    cases.Case("channels", (2, 4, 5, 0), heads=2),
    cases.Case("result", (2, 3, 3, 8), (5, 5), padding="valid", heads=2),
)


@EVERY_OP
@pytest.mark.parametrize("case", EMPTY, ids=[case.name for case in EMPTY])
def test_empty(op, case, native_ops):
    actual = op(native_ops, raw_ops.valid_call(op, case))
    np.testing.assert_array_equal(actual, np.zeros(raw_ops.expected(op, case)[0].shape))


@EVERY_OP
def test_strides_beyond_the_image(op, native_ops):
    """With the largest allowed strides, only the window at the origin is left."""
    call = raw_ops.valid_call(op, dataclasses.replace(raw_ops.CASE, strides=(5, 6)))
    expected = op(native_ops, call)
    call.attributes.update(stride_h=2**31 - 1, stride_w=2**31 - 1)
    np.testing.assert_array_equal(op(native_ops, call), expected)


@EVERY_OP
def test_dilation_beyond_the_image(op, native_ops):
    """With the largest allowed dilation, only the centre of the window is inside the image."""
    case = dataclasses.replace(raw_ops.CASE, kernel_size=(3, 3), dilation_rate=(7, 7))
    call = raw_ops.valid_call(op, case)
    expected = op(native_ops, call)
    call.attributes.update(dilation_h=2**30 - 1, dilation_w=2**30 - 1)
    np.testing.assert_array_equal(op(native_ops, call), expected)


def test_no_bad_call_crashes_the_process(native_ops, python):
    """All bad calls run in a separate process, so that an abort or a crash fails only this test."""
    done = python("-m", "tests.support.raw_ops")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ACCEPTED" not in done.stdout, [line for line in done.stdout.splitlines() if "ACCEPTED" in line]
    assert re.search(r"refused [1-9]\d\d", done.stdout), done.stdout[-1000:]
