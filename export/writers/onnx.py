# SPDX-License-Identifier: Apache-2.0
"""ONNX through tf2onnx: standard ops, or ops of our own with bodies of standard ops; checked, with named axes."""

import collections

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.writers import onnx_native, tf2onnx

STANDARD_DOMAINS = ("", "ai.onnx")
LARGEST_FILE = 2**31 - 1  # a protocol buffer ends here


def write(traced, path, opset):
    """Writes the traced model to the file `path`; returns the histogram of its nodes."""
    if any(dtype.name == "bfloat16" for dtype in traced.dtypes()):
        raise ExportError(
            "ONNX runtimes do not compute in bfloat16, as this model does. Load its weights into a model built under "
            "the policy float32 or mixed_float16, and export that"
        )
    size = sum(variable.shape.num_elements() * variable.dtype.size for variable in traced.concrete.variables)
    if size > LARGEST_FILE:
        raise ExportError(f"One ONNX file holds 2 GB at most. The model has {size / 1e9:.1f} GB of weights")
    found = {}
    model = tf2onnx.convert(traced.function, traced.specs, opset, onnx_native.handlers(found))
    onnx_native.attach(model, _nodes(model.graph), found, opset)
    _refuse_unsupported(model, opset)
    _tidy(model.graph, traced)
    _check(model)
    path.write_bytes(model.SerializeToString())
    return dict(collections.Counter(node.op_type for node in _nodes(model.graph)))


def _refuse_unsupported(model, opset):
    import onnx

    bodies = {(function.domain, function.name) for function in model.functions}
    unsupported = collections.Counter()
    for node in (*_nodes(model.graph), *(node for function in model.functions for node in _nodes(function))):
        standard = node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type, opset, "")
        if not standard and (node.domain, node.op_type) not in bodies:
            unsupported[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
    if unsupported:
        listed = ", ".join(f"{op} ({count})" for op, count in sorted(unsupported.items()))
        raise ExportError(f"The model holds ops that ONNX opset {opset} lacks: {listed}")


def _tidy(graph, traced):
    """Restores the order of inputs and outputs, and names their unknown sizes."""
    for values, wanted in ((graph.input, traced.inputs), (graph.output, traced.outputs)):
        by_name = {value.name: value for value in values}
        if set(by_name) != set(wanted):
            raise ExportError(f"tf2onnx renamed {', '.join(wanted)} to {', '.join(by_name)}")
        for name, (_, axes) in wanted.items():
            _name_axes(by_name[name], axes)
        del values[:]
        values.extend(by_name[name] for name in wanted)
    del graph.value_info[:]  # derived, and full of names of tf2onnx's own


def _name_axes(value, axes):
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in axes:
        dim = shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis


def _check(model):
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"tf2onnx made an invalid model: {error}") from error


def _nodes(graph):
    """Every node, those of subgraphs (loops, branches) too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _nodes(subgraph)
