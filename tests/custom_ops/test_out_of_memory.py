# SPDX-License-Identifier: Apache-2.0
"""A kernel that cannot allocate memory for a very large filter ends with an error, on every host."""

import pathlib
import resource
import sys

import numpy as np
import pytest
import tensorflow as tf

MARGIN = 48 * 2**20  # bytes that the process can still allocate during a call
TAPS = 2**24 + 1  # a copy of such a filter in float32 takes 64 MiB
OUT_OF_MEMORY = "keras_dynfilter: out of memory"
# Two rows, each in a thread of its own. Each row normalizes one filter.
SHAPE, FILTERS = (1, 2, 1, 1), (1, 2, 1, TAPS)
ATTRIBUTES = dict(
    kernel_h=1, kernel_w=TAPS, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, padding="same", heads=1
)


def limited(function):
    """Calls `function` while the process can allocate little memory."""
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MARGIN, before[1]))
    try:
        return function()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def tensorflow_call(mode):
    """Returns a call of the op on zeros."""
    from keras_dynfilter.ops.backends import library

    raw = library.load().ops.keras_dynfilter_softmax_local_filter2d
    inputs, filters = tf.ones(SHAPE), tf.zeros(FILTERS)
    function = tf.function(lambda x, f: raw(x, f, **ATTRIBUTES), jit_compile=mode == "xla", autograph=False)
    return lambda: raw(inputs, filters, **ATTRIBUTES) if mode == "eager" else function(inputs, filters)


def onnxruntime_call(path):
    """Returns a call of the op for ONNX Runtime on zeros."""
    import onnx
    import onnxruntime

    make = onnx.helper
    values = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("inputs", "filters", "y")]
    node = make.make_node("SoftmaxLocalFilter2D", ["inputs", "filters"], ["y"], domain="keras_dynfilter", **ATTRIBUTES)
    graph = make.make_graph([node], "graph", values[:2], values[2:])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("keras_dynfilter", 1)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(path)
    options.intra_op_num_threads, options.log_severity_level = 2, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operands = {"inputs": np.ones(SHAPE, np.float32), "filters": np.zeros(FILTERS, np.float32)}
    return lambda: session.run(None, operands)[0]


def main(mode, path=""):
    call = onnxruntime_call(path) if mode == "onnxruntime" else tensorflow_call(mode)
    np.testing.assert_allclose(call(), np.full(SHAPE, 1 / TAPS), rtol=1e-4)  # also compiles the function
    try:
        limited(call)
        sys.exit("the call succeeded")
    except tf.errors.ResourceExhaustedError as error:
        print(error)
    except Exception as error:
        if mode != "onnxruntime":
            raise
        print(error)
    np.testing.assert_allclose(call(), np.full(SHAPE, 1 / TAPS), rtol=1e-4)


@pytest.mark.parametrize("mode", ["eager", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("graph", "xla"))])
def test_tensorflow(mode, request, python):
    request.getfixturevalue("native_xla" if mode == "xla" else "native_library")
    done = python(__file__, mode)
    assert done.returncode == 0, done.stderr[-3000:]
    assert OUT_OF_MEMORY in done.stdout


@pytest.mark.slow
def test_onnxruntime(ort_library, python):
    pytest.importorskip("onnxruntime")
    done = python(__file__, "onnxruntime", str(ort_library))
    assert done.returncode == 0, done.stderr[-3000:]
    assert OUT_OF_MEMORY in done.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
