# SPDX-License-Identifier: Apache-2.0
"""Runs GraphDefs and SavedModels that call raw ops with any attributes and operands, and files with changed bytes."""

import functools
import pathlib
import random
import tempfile
from typing import Any

import google.protobuf.message
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from keras_dynfilter.export import model_loading
from keras_dynfilter.export.report import ExportError
from keras_dynfilter.ops.backends.raw_ops import PREFIX
from tests.fuzz import edits, problems, rules, tensorflow_calls
from tests.fuzz.failures import Failure, Skipped, check_text

clean = tensorflow_calls.clean
# TensorFlow checks a node against the definition of its op before it makes a kernel or infers a shape.
NODE_TEXTS = (
    *tensorflow_calls.FOREIGN,
    r"NodeDef (missing attr|mentions attr|expected inputs|.*does not match)",
    r"Value for attr|attr value|AttrValue",
    r"Inconsistent attr|Could not find|not in (the )?list",
    r"(must|to) have (exactly )?\d+ inputs?|specified \d+ inputs but|Too (few|many)|Index out of range",
    r"Op type not registered|No OpKernel was registered|No registered",
    r"Invalid name|is not a valid|Duplicate|Node name",
    r"return_element",
    r"Unknown input node|parsing the device spec",
    r"Error parsing|DecodeError|Wrong wire type|Truncated message|parse",
    r"Tensor .* has (the )?wrong|invalid.*(tensor|shape)|TensorProto|Invalid.*dim|tensor_content|Cannot parse tensor",
    r"Dimension .* (must be|too large)|negative dimension",
)
SCRATCH: Any = None


def setup() -> None:
    global SCRATCH
    tensorflow_calls.setup()
    SCRATCH = tempfile.TemporaryDirectory(prefix="saved-models-")


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    forward = tuple(name for name, raw_op in rules.OPS.items() if raw_op.wrt is None)
    files = mode == "saved_models" and random.random() < 0.6
    value = problems.draw(random, repeated, ops=forward if files else tuple(rules.OPS))
    if mode == "saved_models" and random.random() < 0.8:
        value["dtype"] = "float32"
    if random.random() < 0.5 and not files:
        value["node"] = [_node_change(random, rules.OPS[value["op"]]) for _ in range(random.randint(1, 2))]
    if files or (mode == "graph_defs" and random.random() < 0.25):
        value["bytes"] = edits.draw(random)
        value.pop("changes", None)
    return value


def _node_change(random: random.Random, raw_op: Any) -> list:
    name = random.choice((*raw_op.attributes, "T"))
    return random.choice(
        (
            ["remove", name],
            ["text", name, random.choice(("", "same", "max", "x" * 300))],
            ["number", name, random.choice(problems.NUMBERS)],
            ["float", name, random.choice((0.5, -1.0, 3.0))],
            ["list", name, [1, 3]],
            ["type", "T", random.randrange(30)],
            ["extra", "unknown", 3],
            ["inputs", "", random.choice((-2, -1, 1, 2))],
        )
    )


def run(value: dict) -> bool:
    call = problems.resolve(value)
    given, exact = problems.operands(call)
    if value["mode"] == "saved_models":
        return _run_saved_model(call, given, exact, value)
    return _run_graph(call, given, exact, value)


def _change_node(node: Any, changes: list) -> None:
    """Changes a NodeDef as the input says."""
    for kind, name, *rest in changes:
        if kind == "remove":
            node.attr.pop(name, None)
        elif kind == "inputs":
            names = [*node.input]
            del node.input[:]
            node.input.extend(names[: rest[0]] if rest[0] < 0 else names + names[:1] * rest[0])
        elif kind == "list":
            node.attr[name].CopyFrom(attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue(i=rest[0])))
        else:
            field = {"text": "s", "number": "i", "extra": "i", "float": "f", "type": "type"}[kind]
            content = rest[0].encode() if kind == "text" else rest[0]
            node.attr[name].CopyFrom(attr_value_pb2.AttrValue(**{field: content}))


def _node(call: problems.Call, node: Any, inputs: list[str]) -> None:
    """Fills in a NodeDef."""
    node.name, node.op = "op", call.raw_op.type
    node.input.extend(inputs)
    node.attr["T"].type = tf.as_dtype(call.dtype).as_datatype_enum
    for name, number in call.attributes.items():
        if isinstance(number, str):
            node.attr[name].s = number.encode()
        else:
            node.attr[name].i = number


# GraphDefs


def _run_graph(call: problems.Call, given: dict, exact: dict, value: dict) -> bool:
    definition = graph_pb2.GraphDef()
    definition.versions.producer = tf.version.GRAPH_DEF_VERSION
    for operand, array in given.items():
        node = definition.node.add(name=operand, op="Const")
        node.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
        tensor = node.attr["value"].tensor
        tensor.dtype = node.attr["dtype"].type
        tensor.tensor_content = array.tobytes()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
    node = definition.node.add()
    _node(call, node, list(given))
    _change_node(node, value.get("node", ()))
    content = definition.SerializeToString()
    if "bytes" in value:
        content = edits.apply(content, value["bytes"])
        try:
            definition = graph_pb2.GraphDef.FromString(content)
        except google.protobuf.message.DecodeError:
            return False
        if any(node.op not in ("Const", call.raw_op.type) for node in definition.node):
            return False  # ops of TensorFlow are not what is tested

    def compute() -> np.ndarray:
        with tf.Graph().as_default() as graph:
            (output,) = tf.import_graph_def(definition, return_elements=["op:0"], name="")
            with tf.compat.v1.Session(graph=graph) as session:
                return session.run(output)

    if "node" not in value and "bytes" not in value:
        return tensorflow_calls.judge(call, exact, compute)
    try:
        compute()
    except (*tensorflow_calls.REFUSALS, tf.errors.OpError, KeyError) as error:
        check_text(error, (*call.names(), *given), NODE_TEXTS)
        return False
    return True


# SavedModels


@functools.cache
def _template(name: str) -> tuple[pathlib.Path, bytes]:
    """Saves a model that calls an op. Returns its folder and the content of saved_model.pb."""
    raw_op = rules.OPS[name]
    function = tensorflow_calls.function_of(raw_op)
    attributes = {key: "same" if key == "padding" else 1 for key in raw_op.attributes if key != "combine"}

    def serve(**operands: tf.Tensor) -> dict:
        return {"outputs": function(**operands, **attributes)}

    specs = {
        argument: tf.TensorSpec([None], tf.int64, argument)
        if operand == "input_size"
        else tf.TensorSpec([None] * 4, tf.float32, argument)
        for operand, argument in raw_op.inputs.items()
    }
    module = tf.Module()
    module.serve = tf.function(serve, autograph=False, input_signature=None)
    path = pathlib.Path(SCRATCH.name, name)
    tf.saved_model.save(module, str(path), signatures=module.serve.get_concrete_function(**specs))
    return path, (path / "saved_model.pb").read_bytes()


def _run_saved_model(call: problems.Call, given: dict, exact: dict, value: dict) -> bool:
    path, original = _template(value["op"])
    content = saved_model_pb2.SavedModel.FromString(original)
    for node in _nodes(content):
        node.attr.pop("_output_shapes", None)  # the shapes that TensorFlow noted for the original attributes
        if node.op == call.raw_op.type:
            names = [*node.input]
            node_name = node.name
            node.Clear()
            _node(call, node, names)
            node.name = node_name
            node.attr["T"].type = tf.float32.as_datatype_enum
            _change_node(node, value.get("node", ()))
    changed = content.SerializeToString(deterministic=True)
    (path / "saved_model.pb").write_bytes(edits.apply(changed, value.get("bytes", [])))
    if "bytes" in value:
        return _load_for_export(path)

    def compute() -> tf.Tensor:
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        arguments = {
            argument: tensorflow_calls.tensor(given[operand]) for operand, argument in call.raw_op.inputs.items()
        }
        return signature(**arguments)["outputs"]

    plain = "node" not in value and {*call.dtypes.values()} <= {"float32", "int64"}
    ranks = all(array.ndim == (1 if operand == "input_size" else 4) for operand, array in given.items())
    if plain and ranks:
        return tensorflow_calls.judge(call, exact, compute)
    try:
        compute()
    except (*tensorflow_calls.REFUSALS, tf.errors.OpError) as error:
        check_text(error, (*call.names(), *given), (*NODE_TEXTS, r"Binding inputs to tf.function failed", r"cast"))
        return False
    return True


def _nodes(content: Any) -> list:
    return [
        node
        for meta_graph in content.meta_graphs
        for function in meta_graph.graph_def.library.function
        for node in function.node_def
    ]


def _load_for_export(path: pathlib.Path) -> bool:
    """Loads a changed file as the exporter does, which promises an error of its own for every file."""
    try:
        content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except google.protobuf.message.DecodeError:
        content = None
    if content is not None and not any(node.op.startswith(PREFIX) for node in _nodes(content)):
        raise Skipped("no op of this project is left")
    try:
        model_loading.load_model(path)
    except (ExportError, ValueError) as error:
        if not str(error).strip():
            raise Failure("unclear text", f"{type(error).__name__} without a text") from error
        return False
    return True
