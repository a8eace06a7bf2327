# SPDX-License-Identifier: Apache-2.0
"""Writes ONNX files with tf2onnx, checks them, and names the axes of inputs and outputs.

A file holds only standard ops, or also compiled ops of keras_dynfilter, each with a body of standard ops.
"""

import collections
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_dynfilter.export.report import WAY_OUT, Axes, ExportError
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.writers import onnx_native, tf2onnx

STANDARD_DOMAINS = ("", "ai.onnx")
LARGEST_FILE = 2**31 - 1  # limit of a protocol buffer


def write(traced: Traced, path: pathlib.Path, opset: int) -> dict[str, int]:
    """Writes the traced model to the file `path`. Returns the number of nodes of each op.

    Raises:
        ExportError: ONNX lacks an op of the model, the model computes in bfloat16, or it is too large.
    """
    if any(dtype.name == "bfloat16" for dtype in traced.dtypes()):
        raise ExportError(
            "ONNX runtimes do not compute in bfloat16, as this model does. Load its weights into a model built under "
            "the policy float32 or mixed_float16, and export that model"
        )
    size = sum(variable.shape.num_elements() * variable.dtype.size for variable in traced.concrete.variables)
    if size > LARGEST_FILE:
        raise ExportError(f"One ONNX file holds 2 GB at most. The model has {size / 1e9:.1f} GB of weights")
    configurations: dict[tuple[str, str], onnx_native.Configuration] = {}
    handlers = onnx_native.handlers(configurations)
    model = tf2onnx.convert(traced.function, traced.specs, opset, handlers, traced.scopes)
    onnx_native.attach(model, _nodes(model.graph), configurations, opset)
    _refuse_unsupported(model, opset, traced)
    _tidy(model.graph, traced)
    _check(model)
    path.write_bytes(model.SerializeToString())
    return dict(collections.Counter(node.op_type for node in _nodes(model.graph)))


def _refuse_unsupported(model: Any, opset: int, traced: Traced) -> None:
    """Raises an `ExportError` if the model holds an op that is neither in the opset nor has a body."""
    import onnx

    bodies = {(function.domain, function.name) for function in model.functions}
    unsupported: collections.Counter[str] = collections.Counter()
    for node in (*_nodes(model.graph), *(node for function in model.functions for node in _nodes(function))):
        standard = node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type, opset, "")
        if not standard and (node.domain, node.op_type) not in bodies:
            unsupported[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
    if unsupported:
        listed = traced.describe_ops(unsupported)
        raise ExportError(f"The model holds ops that ONNX opset {opset} lacks: {listed}. {WAY_OUT}")


def _tidy(graph: Any, traced: Traced) -> None:
    """Restores the order of the inputs and outputs, and names their open axes."""
    for values, signature in ((graph.input, traced.inputs), (graph.output, traced.outputs)):
        by_name = {value.name: value for value in values}
        if set(by_name) != set(signature):
            raise ExportError(f"tf2onnx renamed {', '.join(signature)} to {', '.join(by_name)}")
        for name, (_, axes) in signature.items():
            _name_axes(by_name[name], axes)
        del values[:]
        values.extend(by_name[name] for name in signature)
    del graph.value_info[:]  # it has names that tf2onnx made up; `onnx` can infer the values again


def _name_axes(value: Any, axes: Axes) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in axes:
        dim = shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis


def _check(model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"tf2onnx made an invalid model: {error}") from error


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields every node, including the nodes of subgraphs (loops, branches)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _nodes(subgraph)
