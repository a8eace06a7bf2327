# SPDX-License-Identifier: Apache-2.0
"""The compiled ops in ONNX: nodes of a domain of our own, each with a body of standard ops.

A stock runtime inlines the body, which is the portable form of the op. A session that has the library of
`keras_dynfilter.export.ort_library` runs its kernel instead. A function of ONNX has no loops over attributes, so there
is one body per configuration. Bodies of the same op lie in domains of their own, which the library knows: overloads are
meant for this, but most versions of onnxruntime take any of them for any other.
"""

import collections
import dataclasses

import numpy as np
import tensorflow as tf

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.writers import tf2onnx
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.geometry import Geometry

DOMAIN, VERSION = "keras_dynfilter", 1
MOST_DOMAINS = 32  # as many as custom_ops/cc/ort/ops.cc registers
IR_VERSION = 8  # the first with functions
# By TensorFlow op: name in the domain, weight, and what its inputs are.
OPS = {
    f"KerasDynfilter>{name}": (name, weight, operands)
    for name, weight, operands in (
        ("LocalFilter2D", "spatial", ("inputs", "spatial")),
        ("SoftmaxLocalFilter2D", "softmax", ("inputs", "spatial")),
        ("DynamicDepthwiseConv2D", "channel", ("inputs", "channel")),
        ("DDF2D", "mul", ("inputs", "channel", "spatial")),
    )
}
_TEXT = "configuration"  # an attribute of the nodes, until they get their domains
_ATTRIBUTES = ("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "padding")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a body depends on.

    Attributes:
        op: Name of the TensorFlow op.
        weight: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
        geometry: A `Geometry`.
        dtype: A `tf.DType`.
        channels: Their number where the filters are repeated for the channels of a head, otherwise None.
    """

    op: str
    weight: str
    geometry: Geometry
    dtype: tf.DType
    channels: int | None

    @property
    def text(self):
        """Unlike that of any other configuration of the op, and readable."""
        g = self.geometry
        parts = [self.dtype.name, *("x".join(map(str, pair)) for pair in (g.kernel_size, g.strides, g.dilation_rate))]
        parts += [g.padding, str(g.heads), self.weight, *([] if self.channels is None else [str(self.channels)])]
        return "_".join(parts)

    def attributes(self):
        """All attributes of the node: the kernels of the library have no defaults."""
        g = self.geometry
        values = dict(zip(_ATTRIBUTES, (*g.kernel_size, *g.strides, *g.dilation_rate, g.padding)))
        if self.weight != "channel":
            values["heads"] = g.heads
        if self.weight in ("mul", "add"):
            values["combine"] = self.weight
        return values

    def portable(self):
        """The op in standard ops: a `tf.function`, and the specs of its inputs, of any batch and image size."""
        operands, g = OPS[self.op][2], self.geometry
        shapes = {
            "inputs": (None, None, None, self.channels),
            "spatial": (None, None, None, g.heads * g.taps),
            "channel": (None, *g.kernel_size, self.channels),
        }
        specs = [tf.TensorSpec(shapes[name], self.dtype, name) for name in operands]

        def compute(*tensors):
            given = dict(zip(operands, tensors))
            outputs = composite.filter2d(
                given["inputs"], given.get("spatial"), given.get("channel"), self.weight, self.geometry
            )
            return {"outputs": outputs}

        return tf.function(compute, input_signature=specs, autograph=False), specs


def handlers(found):
    """Handlers for tf2onnx that turn our raw ops into nodes of the domain.

    Args:
        found: Gets the `Configuration` of every node, by op name and text.
    """

    def convert(context, node, name, args):
        configuration = read(context, node)
        op = OPS[node.type][0]
        found[op, configuration.text] = configuration
        for attribute in list(node.attr):
            del node.attr[attribute]
        for key, value in {**configuration.attributes(), _TEXT: configuration.text}.items():
            node.set_attr(key, value)
        node.type, node.domain = op, DOMAIN

    return {**{op: (convert, []) for op in OPS}, **{op: (handler, []) for op, handler in HANDLERS.items()}}


def _project_and_pool(context, node, *args, **kwargs):
    """A handler that puts standard ops in the place of the raw op: a product and a mean, which runtimes do well."""
    inputs, kernel, bias = node.input
    (projected, means), shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    product = context.make_node("MatMul", [inputs, kernel]).output[0]
    context.make_node("Add", [product, bias], outputs=[projected], shapes=shapes[:1], dtypes=dtypes[:1])
    reduced, attr = [inputs], {"keepdims": 0}
    if context.opset < 18:
        attr["axes"] = [1, 2]
    else:
        reduced.append(context.make_const(f"{node.name}_axes", np.array([1, 2], np.int64)).output[0])
    context.make_node("ReduceMean", reduced, attr=attr, outputs=[means], shapes=shapes[1:], dtypes=dtypes[1:])


# Of the raw ops that runtimes need no kernels for.
HANDLERS = {"KerasDynfilter>ProjectAndPool": _project_and_pool}


def read(context, node):
    import onnx

    def text(name):
        return tf.compat.as_str(node.get_attr_str(name))

    weight = OPS[node.type][1]
    weight = text("combine") if weight == "mul" else weight
    heads = 1 if weight == "channel" else node.get_attr_int("heads")
    pairs = [tuple(node.get_attr_int(f"{name}_{axis}") for axis in "hw") for name in ("kernel", "stride", "dilation")]
    dtype = tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(node.input[0])))
    channels = None
    if heads > 1:
        channels = (context.get_shape(node.input[0]) or [-1])[-1]
        channels = None if channels < 0 else channels
    return Configuration(node.type, weight, Geometry(*pairs, text("padding"), heads), dtype, channels)


def attach(model, nodes, found, opset):
    """Gives the nodes their domains, and the model the bodies.

    Args:
        model: A `ModelProto`.
        nodes: All of its nodes.
        found: What the `handlers` found.
        opset: Of the model.
    """
    import onnx

    domains = collections.defaultdict(dict)  # by op, by configuration
    for node in nodes:
        if node.domain != DOMAIN:
            continue
        (attribute,) = (attribute for attribute in node.attribute if attribute.name == _TEXT)
        known, text = domains[node.op_type], attribute.s.decode()
        known.setdefault(text, DOMAIN if not known else f"{DOMAIN}.{len(known) + 1}")
        node.domain = known[text]
        node.attribute.remove(attribute)
    for op, known in domains.items():
        if len(known) > MOST_DOMAINS:
            raise ExportError(
                f"One ONNX file holds {MOST_DOMAINS} configurations of {op} at most (window, strides, heads, ...). "
                f"The model has {len(known)}"
            )
        for text, domain in known.items():
            model.functions.append(_function(op, domain, text, tf2onnx.convert(*found[op, text].portable(), opset)))
    used = {function.domain for function in model.functions}
    missing = used - {entry.domain for entry in model.opset_import}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, VERSION) for domain in sorted(missing))
    model.ir_version = max(model.ir_version, IR_VERSION)


def _function(op, domain, text, model):
    """The graph of `model` as a function. Functions have no initializers: constants become nodes."""
    import onnx

    graph = model.graph
    constants = [onnx.helper.make_node("Constant", [], [value.name], value=value) for value in graph.initializer]
    names = [[value.name for value in values] for values in (graph.input, graph.output)]
    imports = [entry for entry in model.opset_import if entry.domain == ""]
    return onnx.helper.make_function(domain, op, *names, [*constants, *graph.node], imports, doc_string=text)
