# SPDX-License-Identifier: Apache-2.0
"""Writes the compiled ops to ONNX as nodes of the domain `keras_dynfilter`, each with a body of standard ops.

A stock runtime inlines the body, which is the portable form of the op. A session with the library of `ort_library` runs
the compiled kernel instead.

An ONNX function cannot loop over attributes, so there is one body for each configuration (dtype, window, strides, ...).
The bodies of one op are in different domains: `keras_dynfilter`, `keras_dynfilter.2`, and so on. The library registers
its kernels in each domain. ONNX has overloads for this purpose, but most versions of onnxruntime confuse them.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.writers import tf2onnx
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.backends.raw_ops import PREFIX, RAW_OPS, RawOp
from keras_dynfilter.ops.geometry import Geometry

DOMAIN, VERSION = "keras_dynfilter", 1
MAX_DOMAINS = 32  # number of domains that custom_ops/cc/ort/ops.cc registers
IR_VERSION = 8  # the first version with functions
FORWARD_OPS = {raw_op.type: raw_op for raw_op in RAW_OPS if raw_op.wrt is None}
_CONFIGURATION = "configuration"  # attribute that holds the configuration of a node until its domain is set


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The properties of a node that determine its body.

    Attributes:
        raw_op: The compiled op.
        kind: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
        geometry: The window.
        dtype: The dtype of all tensors.
        channels: Number of channels. None if it is open, or if there is one head: the body then does not depend on it.
    """

    raw_op: RawOp
    kind: str
    geometry: Geometry
    dtype: tf.DType
    channels: int | None

    @property
    def text(self) -> str:
        """A readable text, unique among the configurations of an op."""
        g = self.geometry
        parts = [self.dtype.name, *("x".join(map(str, pair)) for pair in (g.kernel_size, g.strides, g.dilation_rate))]
        parts += [g.padding, str(g.heads), self.kind, *([] if self.channels is None else [str(self.channels)])]
        return "_".join(parts)

    def attributes(self) -> dict[str, Any]:
        """Returns all attributes of the node, because the kernels of the library have no default values."""
        g = self.geometry
        values = {"padding": g.padding, "heads": g.heads, "combine": self.kind}
        for name, pair in (("kernel", g.kernel_size), ("stride", g.strides), ("dilation", g.dilation_rate)):
            values[f"{name}_h"], values[f"{name}_w"] = pair
        return {name: values[name] for name in self.raw_op.attributes}

    def portable(self) -> tuple[Any, list[tf.TensorSpec]]:
        """Returns a `tf.function` of standard ops that computes the op, and the specs of its inputs.

        Batch size and image size are open.
        """
        operands, g = list(self.raw_op.inputs), self.geometry
        shapes = {
            "inputs": (None, None, None, self.channels),
            "spatial": (None, None, None, g.heads * g.taps),
            "channel": (None, *g.kernel_size, self.channels),
        }
        specs = [tf.TensorSpec(shapes[name], self.dtype, name) for name in operands]

        def compute(*tensors):
            values = dict(zip(operands, tensors))
            outputs = composite.filter2d(
                values["inputs"], values.get("spatial"), values.get("channel"), self.kind, self.geometry
            )
            return {"outputs": outputs}

        return tf.function(compute, input_signature=specs, autograph=False), specs


def handlers(configurations: dict[tuple[str, str], Configuration]) -> dict[str, tuple[Callable[..., None], list]]:
    """Returns handlers for tf2onnx that turn the compiled ops into nodes of the domain `keras_dynfilter`.

    Args:
        configurations: A dict to which the handlers add the `Configuration` of every node, by op name and text.
    """

    def convert(context, node, name, args):
        configuration = read(context, node)
        op = configuration.raw_op.name
        configurations[op, configuration.text] = configuration
        for attribute in list(node.attr):
            del node.attr[attribute]
        for key, value in {**configuration.attributes(), _CONFIGURATION: configuration.text}.items():
            node.set_attr(key, value)
        node.type, node.domain = op, DOMAIN

    functions = {**dict.fromkeys(FORWARD_OPS, convert), **STANDARD_HANDLERS}
    return {op: (function, []) for op, function in functions.items()}


def _project_and_pool(context: Any, node: Any, *args: Any, **kwargs: Any) -> None:
    """Replaces a node of ProjectAndPool with a product and a mean, for which runtimes have fast kernels."""
    inputs, kernel, bias = node.input
    (projected, means), shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    product = context.make_node("MatMul", [inputs, kernel]).output[0]
    context.make_node("Add", [product, bias], outputs=[projected], shapes=shapes[:1], dtypes=dtypes[:1])
    reduced: list[str] = [inputs]
    attr: dict[str, Any] = {"keepdims": 0}
    if context.opset < 18:
        attr["axes"] = [1, 2]
    else:
        reduced.append(context.make_const(f"{node.name}_axes", np.array([1, 2], np.int64)).output[0])
    context.make_node("ReduceMean", reduced, attr=attr, outputs=[means], shapes=shapes[1:], dtypes=dtypes[1:])


# Handlers of compiled ops that are written as standard ops even with ops="native".
STANDARD_HANDLERS = {f"{PREFIX}ProjectAndPool": _project_and_pool}


def read(context: Any, node: Any) -> Configuration:
    """Returns the configuration of a node of a compiled op. A handler of tf2onnx calls it."""
    import onnx

    def text(name):
        return tf.compat.as_str(node.get_attr_str(name))

    raw_op = FORWARD_OPS[node.type]
    kind = text("combine") if "combine" in raw_op.attributes else raw_op.kinds[0]
    heads = node.get_attr_int("heads") if "heads" in raw_op.attributes else 1
    kernel_size, strides, dilation_rate = (
        (node.get_attr_int(f"{name}_h"), node.get_attr_int(f"{name}_w")) for name in ("kernel", "stride", "dilation")
    )
    geometry = Geometry(kernel_size, strides, dilation_rate, text("padding"), heads)
    dtype = tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(node.input[0])))
    channels = None
    if heads > 1:
        channels = (context.get_shape(node.input[0]) or [-1])[-1]
        channels = None if channels < 0 else channels
    return Configuration(raw_op, kind, geometry, dtype, channels)


def attach(model: Any, nodes: Iterable[Any], configurations: dict[tuple[str, str], Configuration], opset: int) -> None:
    """Sets the domains of the nodes and adds their bodies to the model.

    Args:
        model: A `ModelProto`.
        nodes: All nodes of the model.
        configurations: The configurations that the handlers collected.
        opset: The opset of the model.

    Raises:
        ExportError: An op has more configurations than `MAX_DOMAINS`.
    """
    import onnx

    domains: dict[str, dict[str, str]] = collections.defaultdict(dict)  # by op, by text of the configuration
    for node in nodes:
        if node.domain != DOMAIN:
            continue
        (attribute,) = (attribute for attribute in node.attribute if attribute.name == _CONFIGURATION)
        domains_of_op, text = domains[node.op_type], attribute.s.decode()
        domains_of_op.setdefault(text, DOMAIN if not domains_of_op else f"{DOMAIN}.{len(domains_of_op) + 1}")
        node.domain = domains_of_op[text]
        node.attribute.remove(attribute)
    for op, domains_of_op in domains.items():
        if len(domains_of_op) > MAX_DOMAINS:
            raise ExportError(
                f"One ONNX file holds {MAX_DOMAINS} configurations of {op} at most (window, strides, heads, ...). "
                f"The model has {len(domains_of_op)}"
            )
        for text, domain in domains_of_op.items():
            body = tf2onnx.convert(*configurations[op, text].portable(), opset)
            model.functions.append(_function(op, domain, text, body))
    used = {function.domain for function in model.functions}
    missing = used - {entry.domain for entry in model.opset_import}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, VERSION) for domain in sorted(missing))
    model.ir_version = max(model.ir_version, IR_VERSION)


def _function(op: str, domain: str, text: str, model: Any) -> Any:
    """Returns the graph of `model` as an ONNX function. Functions have no initializers: constants become nodes."""
    import onnx

    graph = model.graph
    constants = [onnx.helper.make_node("Constant", [], [value.name], value=value) for value in graph.initializer]
    inputs, outputs = ([value.name for value in values] for values in (graph.input, graph.output))
    nodes = [*constants, *graph.node]
    imports = [entry for entry in model.opset_import if entry.domain == ""]
    return onnx.helper.make_function(domain, op, inputs, outputs, nodes, imports, doc_string=text)
