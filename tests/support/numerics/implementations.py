# SPDX-License-Identifier: Apache-2.0
"""Computes a problem with every implementation of the ops."""

import functools

import numpy as np
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import pixel_projection
from keras_dynfilter.ops.backends import raw_ops
from tests.support import cases

# Name -> (implementation, mode). "onnxruntime", which computes the forward ops only, is beside them.
IN_TENSORFLOW = {
    "native": ("native", "eager"),
    "native, graph": ("native", "function"),
    "native, XLA": ("native", "xla"),
    "composite, eager": ("composite", "eager"),
    "composite": ("composite", "function"),
    "composite, XLA": ("composite", "xla"),
}


def in_tensorflow(signature, name):
    """Returns a function that computes `(outputs, first, second)` of the problems of a signature, as float64 arrays."""
    implementation, mode = IN_TENSORFLOW[name]
    function = functools.partial(results, signature)
    if mode != "eager":
        function = tf.function(function, jit_compile=mode == "xla", autograph=False)

    def compute(problem):
        with keras_dynfilter.implementation(implementation):
            return function(*tensors(problem))

    return compute


def tensors(problem):
    """Returns the arrays of a problem as tensors. NumPy converts them, as TensorFlow flushes subnormal numbers."""
    dtype = tf.as_dtype(problem.dtype).as_numpy_dtype
    return [tf.constant(array.astype(dtype)) for array in problem.arrays]


def results(signature, *tensors):
    """Returns `(outputs, first, second)`; `truth.results` describes them."""
    count, outputs = len(signature.operand_shapes), len(signature.output_shapes)
    operands, upstreams, directions = tensors[:count], tensors[count : count + outputs], tensors[count + outputs :]
    with tf.GradientTape() as outer:
        outer.watch([*operands, *upstreams])
        with tf.GradientTape() as inner:
            inner.watch(operands)
            computed = apply(signature, operands)
        first = inner.gradient(computed, operands, output_gradients=upstreams)
    second = outer.gradient(first, [*operands, *upstreams], output_gradients=directions)
    return computed, first, second


def apply(signature, operands):
    """Calls the public op. Returns the list of its outputs."""
    if signature.kind == "projection":
        return list(pixel_projection.project_and_pool(*operands))
    return [cases.apply(cases.OPS[signature.op], signature.case, operands)]


def in_onnxruntime(signature, library):
    """Returns a function that computes the output of a filter op with the compiled ops for onnxruntime."""
    import onnx
    import onnxruntime

    make, types = onnx.helper, onnx.TensorProto
    op, case = raw_ops.TABLE[signature.kind, None], signature.case
    attributes = {"padding": case.padding, "heads": case.heads, "combine": signature.kind}
    for name, pair in (("kernel", case.kernel_size), ("stride", case.strides), ("dilation", case.dilation_rate)):
        attributes[f"{name}_h"], attributes[f"{name}_w"] = pair
    names = list(op.inputs.values())
    # NumPy has no bfloat16: casts from and to float32 surround the op.
    casts = signature.dtype == "bfloat16"
    element = {"bfloat16": types.FLOAT, "float16": types.FLOAT16, "float32": types.FLOAT, "float64": types.DOUBLE}
    values = [make.make_tensor_value_info(name, element[signature.dtype], None) for name in (*names, "outputs")]
    inner = [f"{name}_inner" for name in (*names, "outputs")] if casts else [*names, "outputs"]
    chosen = {name: attributes[name] for name in op.attributes}
    node = make.make_node(op.name, inner[:-1], inner[-1:], domain="keras_dynfilter", **chosen)
    before = [make.make_node("Cast", [a], [b], to=types.BFLOAT16) for a, b in zip(names, inner)] if casts else []
    after = [make.make_node("Cast", inner[-1:], ["outputs"], to=types.FLOAT)] if casts else []
    opsets = [make.make_opsetid("", 18), make.make_opsetid("keras_dynfilter", 1)]
    graph = make.make_graph([*before, node, *after], "problem", values[:-1], values[-1:])
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = make.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def compute(problem):
        by_role = dict(zip(problem.roles, problem.operands))
        dtype = np.float32 if casts else problem.dtype
        return session.run(None, {name: by_role[role].astype(dtype) for role, name in op.inputs.items()})

    return compute
