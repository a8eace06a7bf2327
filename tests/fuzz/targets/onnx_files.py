# SPDX-License-Identifier: Apache-2.0
"""Runs ONNX files with the library for ONNX Runtime: nodes with any attributes and operands, and changed bytes."""

import functools
import random
import re
from typing import Any

import numpy as np
import onnx
import onnxruntime

from keras_dynfilter import export
from tests.fuzz import edits, fast_reference, problems, rules
from tests.fuzz.failures import Failure, Skipped, check_text

FORWARD = tuple(name for name, raw_op in rules.OPS.items() if raw_op.wrt is None)
TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}
# ONNX Runtime says these itself; texts of the library contain "keras_dynfilter:".
MEMORY = r"Failed to allocate memory|bad_alloc.*Arena|Available memory of"


def setup() -> None:
    export.ort_library()
    onnxruntime.set_default_logger_severity(4)


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    value = problems.draw(random, repeated, ops=FORWARD)
    value["constants"] = random.random() < 0.3
    if random.random() < 0.3:
        value["shapes"] = random.choice(("known", "names", "wrong"))
    if random.random() < 0.3:
        name = random.choice(rules.OPS[value["op"]].attributes)
        value["node"] = [
            random.choice(
                (
                    ["remove", name],
                    ["set", name, random.choice(("", "max", "same", 0.5, [1, 3], *problems.NUMBERS))],
                    ["set", "unknown", 3],
                    ["inputs", random.choice((-2, -1, 1, 2))],
                    ["domain", random.choice(("keras_dynfilter.2", "keras_dynfilter.32", "keras_dynfilter.33", ""))],
                    ["op", random.choice((*FORWARD, "LocalFilter2DGradInputs"))],
                )
            )
        ]
    if mode == "bytes":
        value["bytes"] = edits.draw(random)
    return value


def run(value: dict) -> bool:
    call = problems.resolve(value)
    given, exact = problems.operands(call)
    content = _model(call, given, value).SerializeToString()
    changed = "node" in value or "bytes" in value or value.get("shapes") == "wrong"
    content = edits.apply(content, value.get("bytes", []))
    try:
        session = onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        feeds = {} if value["constants"] else given
        if changed:
            feeds = {argument.name: given.get(argument.name, np.zeros([1])) for argument in session.get_inputs()}
        results = session.run(None, {name: array.astype(_numpy(array)) for name, array in feeds.items()})
    except Exception as error:  # ONNX Runtime has an exception class for every code
        return _refused(call, error, changed)
    if changed:
        return True
    if not call.is_correct:
        raise Failure("wrong decision", f"a file was accepted that is not correct: {call.reason}")
    _check(call, exact, results[0])
    return True


def _refused(call: problems.Call, error: Exception, changed: bool) -> bool:
    text = str(error)
    if call.is_correct and not changed and not call.geometry.is_large(call.raw_op):
        raise Failure("wrong decision", f"a correct file was refused: {text}") from error
    by_library = "keras_dynfilter: " in text or re.search(f"while running ({'|'.join(FORWARD)}) node", text)
    if by_library and not re.search(MEMORY, text):
        # ONNX Runtime itself says which attribute is missing or of another type.
        check_text(error, call.names(), (r"keras_dynfilter: Attribute \w+: ",))
    return False


def _check(call: problems.Call, exact: dict, actual: np.ndarray) -> None:
    expected, scale, terms = fast_reference.derivative(call.geometry, None, exact)
    if actual.size or expected.size:
        fast_reference.compare(actual, expected, scale, terms, call.dtype)


def _numpy(array: np.ndarray) -> Any:
    """bfloat16 enters and leaves a file as float32, because ONNX Runtime has no NumPy type for it."""
    return np.float32 if array.dtype.name == "bfloat16" else array.dtype


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(_library())
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return options


@functools.cache
def _library() -> str:
    return export.ort_library()


def _model(call: problems.Call, given: dict, value: dict) -> Any:
    node_changes = value.get("node", ())
    names, attributes, domain, op = [*given], dict(call.attributes), "keras_dynfilter", call.raw_op.name
    for kind, *rest in node_changes:
        if kind == "remove":
            attributes.pop(rest[0], None)
        elif kind == "set":
            attributes[rest[0]] = rest[1]
        elif kind == "inputs":
            names = names[: rest[0]] if rest[0] < 0 else names + names[:1] * rest[0]
        elif kind == "domain":
            domain = rest[0]
        elif kind == "op":
            op = rest[0]
    make, nodes, initializers, inputs = onnx.helper.make_node, [], [], []
    operands = []
    for name in names:
        wide = given[name].dtype.name == "bfloat16"
        operands.append(f"{name}_rounded" if wide else name)
    for name, array in given.items():
        if array.dtype.name == "bfloat16":
            nodes.append(make("Cast", [name], [f"{name}_rounded"], to=onnx.TensorProto.BFLOAT16))
        array = array.astype(_numpy(array))
        if value["constants"]:
            if array.nbytes == 0 and array.shape and max(array.shape) > 2**31:
                raise Skipped("the constant cannot be stored")
            initializers.append(onnx.numpy_helper.from_array(array, name))
        else:
            element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, element, _declared(array, value.get("shapes"))))
    for name, item in attributes.items():
        if isinstance(item, int) and not -(2**63) <= item < 2**63:
            attributes[name] = 0
    rounded = call.dtype == "bfloat16"
    nodes.append(make(op, operands, ["rounded" if rounded else "outputs"], domain=domain, **attributes))
    if rounded:
        nodes.append(make("Cast", ["rounded"], ["outputs"], to=onnx.TensorProto.FLOAT))
    element = onnx.TensorProto.FLOAT if rounded else getattr(onnx.TensorProto, TYPES[call.dtype])
    output = onnx.helper.make_tensor_value_info("outputs", element, None)
    graph = onnx.helper.make_graph(nodes, "graph", inputs, [output], initializers)
    opsets = [onnx.helper.make_opsetid("", 18)]
    if domain:
        opsets.append(onnx.helper.make_opsetid(domain, 1))
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _declared(array: np.ndarray, shapes: str | None) -> Any:
    """Returns the shape of an input as the file declares it."""
    if shapes == "known":
        return list(array.shape)
    if shapes == "names":
        return [f"size_{axis}" for axis in range(array.ndim)]
    if shapes == "wrong":
        return [size + 1 for size in array.shape]
    return None
