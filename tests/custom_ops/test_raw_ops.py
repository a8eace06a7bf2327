# SPDX-License-Identifier: Apache-2.0
"""Every raw op and raw gradient op: results, refusal of bad arguments, and shapes at trace time."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.support import cases, raw_ops

pytestmark = pytest.mark.legacy

EVERY_OP = pytest.mark.parametrize("op", raw_ops.OPS, ids=[f"{op.name}-{op.kind}" for op in raw_ops.OPS])
REFUSALS = (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError)
TRACE_REFUSALS = (ValueError, tf.errors.InvalidArgumentError)


def table(rows):
    """Parametrizes a test with `(op, name of the change)` for the changes of `rows` that apply to the op."""
    pairs = [(op, name) for op in raw_ops.OPS for name, _ in raw_ops.refused(op, rows)]
    return pytest.mark.parametrize("op,change", pairs, ids=[f"{op.name}-{op.kind}-{name}" for op, name in pairs])


def bad_call(op, change):
    return raw_ops.REFUSED[change](op, raw_ops.valid_call(op))


def check(op, actual, dtype="float32", case=raw_ops.CASE):
    truth, scale = raw_ops.expected(op, case)
    cases.assert_close(actual, truth, scale + 1, 200, dtype)


@EVERY_OP
def test_result(op, native_ops, dtype):
    check(op, op(native_ops, raw_ops.valid_call(op, dtype=dtype)), dtype)


@table({**raw_ops.SHAPES, **raw_ops.VALUES, **raw_ops.ATTRIBUTES})
def test_refused(op, change, native_ops):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        op(native_ops, bad_call(op, change))
    assert re.search(r"Expected .* Received|[Vv]alue for attr", str(error.value)), error.value


@table(raw_ops.HUGE)
def test_huge_is_refused(op, change, native_ops):
    with pytest.raises(REFUSALS):
        op(native_ops, bad_call(op, change))


@pytest.mark.slow
@table({**raw_ops.SHAPES, **raw_ops.ATTRIBUTES})
def test_refused_when_traced(op, change, native_ops):
    """Shapes that contradict each other or an attribute are refused before anything runs."""
    call = bad_call(op, change)

    @tf.function(autograph=False)
    def traced(inputs):
        if not change.startswith("input_size") and "input_size" in inputs:  # only a constant is known in a trace
            inputs = {**inputs, "input_size": tf.constant(raw_ops.CASE.shape[1:3], tf.int64)}
        return op(native_ops, raw_ops.Call(inputs, call.attributes))

    with pytest.raises(TRACE_REFUSALS):
        traced.get_concrete_function(call.inputs)


@pytest.mark.slow
@table({**raw_ops.SHAPES, **raw_ops.VALUES})
def test_refused_in_a_graph_of_unknown_shapes(op, change, native_ops):
    call = bad_call(op, change)

    @tf.function(autograph=False)
    def traced(inputs):
        return op(native_ops, raw_ops.Call(inputs, call.attributes))

    specs = {operand: tf.TensorSpec(None, value.dtype) for operand, value in call.inputs.items()}
    function = traced.get_concrete_function(specs)
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(call.inputs)


# A few changes of every table, because compiling is slow.
COMPILED = (
    "heads_that_do_not_divide",
    "inputs_rank_3",
    "spatial_axis_3",
    "channel_axis_1",
    "grad_axis_2",
    "input_size_short",
    "input_size_negative",
    "input_size_too_high",
    "kernel_w_2",
    "heads_other",
    "taps_and_heads_that_overflow",
    "window_that_wraps",
    "image_of_an_overflow",
)


@table({name: raw_ops.REFUSED[name] for name in COMPILED})
def test_refused_when_compiled(op, change, native_xla):
    """The lowering to XLA refuses the same calls as the kernels. The shapes are unknown when the function is traced."""
    call = bad_call(op, change)

    @tf.function(autograph=False, jit_compile=True)
    def compiled(inputs):
        return op(native_xla.ops, raw_ops.Call(inputs, call.attributes))

    specs = {operand: tf.TensorSpec(None, value.dtype) for operand, value in call.inputs.items()}
    with pytest.raises((ValueError, *REFUSALS)) as error:
        compiled.get_concrete_function(specs)(call.inputs)
    assert re.search(r"Expected .* Received", str(error.value)), error.value


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


def test_inputs_of_different_dtypes_are_refused(native_ops):
    for op in raw_ops.OPS:
        call = raw_ops.valid_call(op)
        last = op.operands[-1]
        call.inputs[last] = tf.cast(call.inputs[last], tf.float64)
        if len([operand for operand in op.operands if operand != "input_size"]) > 1:
            with pytest.raises(tf.errors.InvalidArgumentError):
                op(native_ops, call)


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
