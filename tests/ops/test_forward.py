# SPDX-License-Identifier: Apache-2.0
"""Compares results of the public ops with the reference implementation, for geometries, dtypes, layouts and modes."""

import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

EVERY_CASE = pytest.mark.parametrize("case", cases.CASES, ids=cases.IDS)
SOME_CASES = (*cases.REPRESENTATIVE, "valid_window_beyond_image")


@pytest.fixture(params=cases.OPS)
def op(request):
    return cases.OPS[request.param]


def check(op, case, implementation, dtype="float32", mode="eager", data_format="channels_last"):
    truth = cases.truth(op, case)
    tensors = cases.tensors(truth.operands, dtype)
    output = cases.run(lambda *tensors: cases.apply(op, case, tensors, data_format), tensors, mode, implementation)
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, dtype)


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
def test_channels_first_dtypes(op, case, implementation, dtype):
    check(op, case, implementation, dtype, data_format="channels_first")


@cases.parametrize_all("plain", "everything_valid", "valid_window_beyond_image", "one_pixel")
def test_channels_first(op, case, implementation):
    """A few fast cases suffice: the op transposes operands and results, for any geometry."""
    check(op, case, implementation, data_format="channels_first")


@cases.parametrize_all(*SOME_CASES)
def test_graph(op, case, implementation):
    check(op, case, implementation, mode="function")


@cases.parametrize_all(*cases.EXTENDED)
def test_xla_native(op, case, native_xla):
    check(op, case, "native", mode="xla")


@cases.parametrize_all(*SOME_CASES)
def test_xla_composite(op, case):
    check(op, case, "composite", mode="xla")


@cases.parametrize("two_heads_of_16")
def test_xla_dtypes(op, case, xla_implementation, dtype):
    check(op, case, xla_implementation, dtype, "xla")


@cases.parametrize("unequal_strides")
def test_xla_channels_first(op, case, xla_implementation):
    check(op, case, xla_implementation, "float32", "xla", "channels_first")


UNKNOWN = {
    "batch": lambda shape, role: [None, *shape[1:]],
    "image": lambda shape, role: [shape[0], *cases.unknown_sizes(shape, role)[1:3], *shape[3:]],
    "channels": lambda shape, role: [*shape[:-1], None],
    "sizes": cases.unknown_sizes,
}


def check_traced(op, case, shapes, implementation, data_format="channels_last", mode="function"):
    """Traces the op for the given shapes, and compares its result for the operands of the case with the truth."""
    truth = cases.truth(op, case)

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes], jit_compile=mode == "xla")
    def function(*tensors):
        output = cases.apply(op, case, tensors, data_format)
        assert output.shape.rank == 4
        return output

    with keras_dynfilter.implementation(implementation):
        output = function(*cases.tensors(truth.operands, "float32"))
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, "float32")


@pytest.mark.parametrize("unknown", UNKNOWN)
@cases.parametrize("plain", "valid_window_beyond_image")
def test_traced_with_unknown_sizes(op, case, unknown, implementation):
    shapes = [UNKNOWN[unknown](case.operand_shape(role), role) for role in op.roles]
    check_traced(op, case, shapes, implementation)


@cases.parametrize("plain")
def test_traced_with_unknown_sizes_channels_first(op, case, implementation):
    shapes = [cases.unknown_sizes(case.operand_shape(role), role) for role in op.roles]
    check_traced(op, case, shapes, implementation, "channels_first")


@cases.parametrize("unequal_strides", "everything_at_once", "everything_valid")
def test_traced_with_all_sizes_unknown(op, case, implementation):
    check_traced(op, case, [cases.unknown_sizes(case.operand_shape(role), role) for role in op.roles], implementation)


@cases.parametrize("everything_at_once")
def test_xla_with_all_sizes_unknown(op, case, xla_implementation):
    shapes = [cases.unknown_sizes(case.operand_shape(role), role) for role in op.roles]
    check_traced(op, case, shapes, xla_implementation, mode="xla")


@pytest.mark.parametrize("name", ["local_filter2d", "local_filter2d_softmax"])
@cases.parametrize("everything_at_once", "everything_valid")
def test_traced_with_unknown_ranks(name, case, implementation, data_format):
    check_traced(cases.OPS[name], case, [None, None], implementation, data_format)


@cases.parametrize(*SOME_CASES)
def test_static_shape(op, case, implementation):
    specs = [tf.TensorSpec(case.operand_shape(role)) for role in op.roles]
    with keras_dynfilter.implementation(implementation):
        traced = tf.function(lambda *tensors: cases.apply(op, case, tensors)).get_concrete_function(*specs)
    assert traced.structured_outputs.shape == case.output_shape(op)
