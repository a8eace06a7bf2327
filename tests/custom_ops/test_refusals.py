# SPDX-License-Identifier: Apache-2.0
"""Bad and borderline problems of the raw ops: all modes accept the same problems and refuse the others alike."""

import re

import pytest
import tensorflow as tf

from tests.support import raw_op_modes, raw_ops

pytestmark = pytest.mark.legacy

BAD = [(op, name) for op in raw_ops.OPS for name, _ in raw_ops.refused(op)]
BORDERLINE = [(op, name) for op in raw_ops.OPS for name, _ in raw_ops.refused(op, raw_ops.ACCEPTED)]


def table(pairs, fast):
    """Parametrizes a test with ops and names of changes. Ops other than `fast` are slow."""
    rows = []
    for op, name in pairs:
        marks = () if op.name == fast and op.kind != "add" else pytest.mark.slow
        rows.append(pytest.param(op, name, marks=marks, id=f"{op.name}-{op.kind}-{name}"))
    return pytest.mark.parametrize("op, change", rows)


@pytest.fixture
def modes(native_library):
    """The modes that this machine has."""
    return [mode for mode in raw_op_modes.MODES if native_library.xla or not mode.startswith("jit")]


def outcomes(op, call, library, modes):
    """Returns the outcome of a call in each mode."""

    def function(inputs):
        return op(library, raw_ops.Call(inputs, call.attributes))

    return {mode: raw_op_modes.outcome(function, call.inputs, mode, ["input_size"]) for mode in modes}


def same(by_mode):
    """Returns the outcome that all modes have, or fails."""
    first = by_mode["eager"]
    assert all(other == first for other in by_mode.values()), by_mode
    return first


@table(BAD, fast="softmax_local_filter2d_grad_inputs")
def test_bad_problems(op, change, native_ops, modes):
    call = raw_ops.REFUSED[change](op, raw_ops.valid_call(op))
    outcome = same(outcomes(op, call, native_ops, modes))
    assert outcome.text.startswith("Expected ") and "Received: " in outcome.text, outcome
    assert re.search(r"`\w+`|kernel_h=", outcome.text), outcome  # names an argument


@table(BORDERLINE, fast="ddf2d")
def test_borderline_problems(op, change, native_ops, modes):
    call = raw_ops.ACCEPTED[change](op, raw_ops.valid_call(op))
    assert same(outcomes(op, call, native_ops, modes)).shapes is not None


PROJECTIONS = {
    "inputs of rank 3": ((4, 4, 8), (8, 9), (9,), r"Expected `inputs` to have rank 4. Received: inputs.shape=[4,4,8]"),
    "kernel of rank 3": (
        (1, 4, 4, 8),
        (1, 8, 9),
        (9,),
        "Expected `kernel` to have rank 2. Received: kernel.shape=[1,8,9]",
    ),
    "bias of rank 0": ((1, 4, 4, 8), (8, 9), (), "Expected `bias` to have rank 1. Received: bias.shape=[]"),
    "channels": (
        (1, 4, 4, 8),
        (7, 9),
        (9,),
        "Expected `kernel` to have shape [channels,outputs] = [8,?]. Received: kernel.shape=[7,9]",
    ),
    "outputs": (
        (1, 4, 4, 8),
        (8, 9),
        (8,),
        "Expected `bias` to have shape [outputs] = [9]. Received: bias.shape=[8]",
    ),
    "a projection beyond memory": (
        (1, 2**20, 2**20, 0),
        (0, 2**20),
        (2**20,),
        "Expected the projection of `inputs` by `kernel` to have sizes with a product of at most 2^48, where "
        "zeros count as ones. Received: shape=[1,1048576,1048576,1048576]",
    ),
    "means beyond memory": (
        (2**24, 0, 1, 2**40),
        (2**40, 0),
        (0,),
        "Expected `inputs` to have sizes with a product of at most 2^48, where zeros count as ones. "
        "Received: shape=[16777216,0,1,1099511627776]",
    ),
    "no images, but large ones": (
        (0, 2**22, 2**22, 2**16),
        (2**16, 9),
        (9,),
        "Expected `inputs` to have sizes with a product of at most 2^48, where zeros count as ones. "
        "Received: shape=[0,4194304,4194304,65536]",
    ),
    "no images": ((0, 2**20, 2**20, 2**8), (2**8, 9), (9,), ""),
    "no pixels": ((2, 0, 4, 8), (8, 9), (9,), ""),
    "no channels": ((2, 4, 4, 0), (0, 9), (9,), ""),
    "no outputs": ((2, 4, 4, 8), (8, 0), (0,), ""),
}


@pytest.mark.parametrize("inputs, kernel, bias, text", PROJECTIONS.values(), ids=PROJECTIONS)
def test_projections(inputs, kernel, bias, text, native_ops, modes):
    tensors = dict(inputs=tf.zeros(inputs), kernel=tf.zeros(kernel), bias=tf.zeros(bias))

    def function(tensors):
        return native_ops.keras_dynfilter_project_and_pool(**tensors)

    outcome = same({mode: raw_op_modes.outcome(function, tensors, mode) for mode in modes})
    assert outcome.text == text and (outcome.shapes is None) == bool(text)


def attribute(name, value):
    return lambda op, call: raw_ops.Call(call.inputs, {**call.attributes, name: value})


def cast(operand, dtype):
    return lambda op, call: raw_ops.Call(
        {**call.inputs, operand: tf.cast(call.inputs[operand], dtype)}, call.attributes
    )


# TensorFlow refuses these calls before the op sees them, with texts of its own.
BY_TENSORFLOW = {
    "another dtype": cast("grad", "float64"),
    "integers": cast("grad", "int32"),
    "input_size of 32 bits": cast("input_size", "int32"),
    "input_size of floats": cast("input_size", "float32"),
    "an attribute beyond 64 bits": attribute("stride_h", 2**63),
    "a text for a number": attribute("stride_h", "two"),
    "a fraction": attribute("stride_h", 1.5),
    "no number": attribute("stride_h", None),
    "a number for a text": attribute("padding", 1),
}


@pytest.mark.parametrize("change", BY_TENSORFLOW)
def test_refused_by_tensorflow(change, native_ops, modes):
    (op,) = (op for op in raw_ops.OPS if op.name == "local_filter2d_grad_inputs")
    call = BY_TENSORFLOW[change](op, raw_ops.valid_call(op))
    for mode, outcome in outcomes(op, call, native_ops, modes).items():
        assert outcome.shapes is None and outcome.text, (mode, outcome)
