# SPDX-License-Identifier: Apache-2.0
"""Sizes that are unknown when a graph is traced are checked when it runs: no implementation broadcasts a size of 1."""

import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops.backends import scope
from tests.support import cases

pytestmark = pytest.mark.legacy

CASE = cases.Case("case", (2, 5, 6, 4), heads=2)
# The axes of each role whose size another operand determines.
AXES = {"inputs": (0, 1, 2, 3), "spatial": (0, 1, 2), "channel": (0, 3), "bank": (0, 3), "banks": (0, 1, 2, 5)}
NEEDED_BY_INPUTS = {0: AXES.keys(), 1: {"spatial", "banks"}, 2: {"spatial", "banks"}, 3: {"channel", "bank", "banks"}}
ROWS = [
    (name, index, axis)
    for name, op in cases.OPS.items()
    for index, role in enumerate(op.roles)
    for axis in AXES[role]
    if role != "inputs" or NEEDED_BY_INPUTS[axis] & set(op.roles)
]
IDS = [f"{name}-{cases.OPS[name].roles[index]}-axis_{axis}" for name, index, axis in ROWS]
FAST = ("ddf2d_mul", "local_conv2d")  # all kinds of operands


def parametrize(*fast):
    """Runs a test for every row. Rows of other ops than those in `fast` are slow."""
    marks = {name: () if name in fast else pytest.mark.slow for name in cases.OPS}
    rows = [pytest.param(*row, marks=marks[row[0]], id=label) for row, label in zip(ROWS, IDS)]
    return pytest.mark.parametrize("name, index, axis", rows)


EVERY_OP = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in cases.OPS]
)


def traced(op, case, implementation, jit_compile=False):
    """Returns a function that was traced with unknown sizes."""
    specs = [tf.TensorSpec(cases.unknown_sizes(case.operand_shape(role), role)) for role in op.roles]
    function = tf.function(
        lambda *tensors: cases.apply(op, case, tensors), input_signature=specs, jit_compile=jit_compile
    )
    with keras_dynfilter.implementation(implementation):
        function.get_concrete_function()
    return function


def check_refused(name, index, axis, implementation, jit_compile):
    op = cases.OPS[name]
    arrays = cases.operands(op, CASE)
    arrays[index] = arrays[index].take([0], axis)
    function = traced(op, CASE, implementation, jit_compile)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        function(*cases.tensors(arrays, "float32"))
    return str(raised.value)


@parametrize(*FAST)
def test_sizes_of_one_are_refused(name, index, axis, implementation):
    text = check_refused(name, index, axis, implementation, jit_compile=False)
    assert "Expected " in text and "Received" in text, text


@parametrize("ddf2d_mul")
def test_sizes_of_one_are_refused_by_xla(name, index, axis, xla_implementation):
    """XLA drops assertions. Its texts are those of the ops that follow."""
    check_refused(name, index, axis, xla_implementation, jit_compile=True)


@EVERY_OP
@pytest.mark.parametrize(
    "case",
    [CASE, cases.Case("no_result", (2, 3, 4, 4), (5, 5), padding="valid", heads=2), cases.Case("one", (1, 1, 1, 1))],
    ids=lambda case: case.name,
)
def test_valid_sizes_are_accepted(name, case, implementation):
    op = cases.OPS[name]
    tensors = cases.tensors(cases.operands(op, case), "float32")
    with keras_dynfilter.implementation(implementation):
        expected = cases.apply(op, case, tensors)
    tf.debugging.assert_near(traced(op, case, implementation)(*tensors), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("name", ["local_filter2d", "ddf2d_mul"])
def test_heads_that_do_not_divide_unknown_channels(name, implementation):
    op = cases.OPS[name]
    function = traced(op, CASE, implementation)
    arrays = cases.operands(op, CASE)
    arrays = [array[..., :3] if role != "spatial" else array for array, role in zip(arrays, op.roles)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Expected `?heads`? to divide the channels"):
        function(*cases.tensors(arrays, "float32"))


@EVERY_OP
def test_graphs_have_checks_only_for_unknown_sizes_outside_of_exports(name):
    op = cases.OPS[name]

    def assertions(function):
        return [node for node in function.get_concrete_function().graph.get_operations() if node.type == "Assert"]

    assert assertions(traced(op, CASE, "composite"))
    with scope.inference_only():
        assert not assertions(traced(op, CASE, "composite"))
    tensors = cases.tensors(cases.operands(op, CASE), "float32")
    with keras_dynfilter.implementation("composite"):
        assert not assertions(tf.function(lambda: cases.apply(op, CASE, tensors)))
