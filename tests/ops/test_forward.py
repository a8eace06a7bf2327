# SPDX-License-Identifier: Apache-2.0
"""Results of the public functions against the oracle, over awkward geometries, dtypes, layouts and ways to run."""

import pytest
import tensorflow as tf

import keras_dynfilter
from tests.support import cases

pytestmark = pytest.mark.legacy

EVERY_CASE = pytest.mark.parametrize("case", cases.CASES, ids=cases.IDS)


@pytest.fixture(params=cases.OPS)
def op(request):
    return cases.OPS[request.param]


def check(op, case, implementation, dtype="float32", mode="eager", data_format="channels_last"):
    truth = cases.truth(op, case)
    tensors = cases.tensors(truth.operands, dtype)
    output = cases.run(lambda *given: cases.apply(op, case, given, data_format), tensors, mode, implementation)
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, dtype)


@EVERY_CASE
def test_eager(op, case, implementation, dtype, data_format):
    check(op, case, implementation, dtype, "eager", data_format)


@EVERY_CASE
def test_graph_native(op, case, native_library):
    check(op, case, "native", mode="function")


@cases.parametrize("plain", "unequal_strides", "everything_at_once", "everything_valid", "valid_window_beyond_image")
def test_graph_composite(op, case):
    check(op, case, "composite", mode="function")


@EVERY_CASE
def test_xla_native(op, case, native_xla):
    check(op, case, "native", mode="xla")


@cases.parametrize("plain", "unequal_strides", "everything_at_once", "everything_valid", "valid_window_beyond_image")
def test_xla_composite(op, case):
    check(op, case, "composite", mode="xla")


@cases.parametrize("two_heads_of_16")
def test_xla_dtypes(op, case, xla_implementation, dtype):
    check(op, case, xla_implementation, dtype, "xla")


@cases.parametrize("unequal_strides")
def test_xla_channels_first(op, case, xla_implementation):
    check(op, case, xla_implementation, "float32", "xla", "channels_first")


UNKNOWN = {
    "batch": lambda shape, kind: [None, *shape[1:]],
    "image": lambda shape, kind: [shape[0], *cases.unknown_sizes(shape, kind)[1:3], *shape[3:]],
    "channels": lambda shape, kind: [*shape[:-1], None],
    "sizes": cases.unknown_sizes,
}


def check_traced(op, case, shapes, implementation, data_format="channels_last", mode="function"):
    truth = cases.truth(op, case)

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes], jit_compile=mode == "xla")
    def function(*given):
        output = cases.apply(op, case, given, data_format)
        assert output.shape.rank == 4
        return output

    with keras_dynfilter.implementation(implementation):
        output = function(*cases.tensors(truth.operands, "float32"))
    cases.assert_close(output, truth.output, truth.output_scale, truth.terms, "float32")


@pytest.mark.parametrize("unknown", UNKNOWN)
@cases.parametrize("plain", "valid_window_beyond_image")
def test_traced_with_unknown_sizes(op, case, unknown, implementation, data_format):
    shapes = [UNKNOWN[unknown](case.operand_shape(kind), kind) for kind in op.kinds]
    check_traced(op, case, shapes, implementation, data_format)


@cases.parametrize("unequal_strides", "everything_at_once", "everything_valid")
def test_traced_with_all_sizes_unknown(op, case, implementation):
    check_traced(op, case, [cases.unknown_sizes(case.operand_shape(kind), kind) for kind in op.kinds], implementation)


@cases.parametrize("everything_at_once")
def test_xla_with_all_sizes_unknown(op, case, xla_implementation):
    shapes = [cases.unknown_sizes(case.operand_shape(kind), kind) for kind in op.kinds]
    check_traced(op, case, shapes, xla_implementation, mode="xla")


@pytest.mark.parametrize("name", ["local_filter2d", "local_filter2d_softmax"])
@cases.parametrize("plain", "everything_at_once", "everything_valid")
def test_traced_with_unknown_ranks(name, case, implementation, data_format):
    check_traced(cases.OPS[name], case, [None, None], implementation, data_format)


@cases.parametrize("plain", "unequal_strides", "everything_at_once", "everything_valid", "valid_window_beyond_image")
def test_static_shape(op, case, implementation):
    specs = [tf.TensorSpec(case.operand_shape(kind)) for kind in op.kinds]
    with keras_dynfilter.implementation(implementation):
        traced = tf.function(lambda *given: cases.apply(op, case, given)).get_concrete_function(*specs)
    assert traced.structured_outputs.shape == case.output_shape(op)
