# SPDX-License-Identifier: Apache-2.0
"""LiteRT through TensorFlow's converter: built-in ops only, in the precision asked for."""

import collections
import pathlib
import re
import tempfile
import warnings

import tensorflow as tf

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.writers import saved_model

LARGEST_FILE = 2**31 - 1  # offsets of a FlatBuffer end here


def write(traced, path, opset, precision, representative_data):
    """Writes the traced model to the file `path`; returns the histogram of its nodes.

    Args:
        precision: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`.
        representative_data: For `"int8"`: a list of inputs, arrays by name.
    """
    foreign = sorted({dtype.name for dtype in traced.dtypes()} - {"float32"})
    if foreign:
        raise ExportError(
            f"A LiteRT file is made of a model that computes in float32. This one computes in {', '.join(foreign)}: "
            "load its weights into a model built under the policy float32, and export that, with precision='float16' "
            "for half the size"
        )
    content = _convert(traced, precision, representative_data)
    nodes = operators(content)
    _refuse_foreign(nodes)
    path.write_bytes(content)
    return dict(nodes)


def _convert(traced, precision, representative_data):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter calibrates with the interpreter that TensorFlow is to lose
        saved = pathlib.Path(folder) / "model"
        saved_model.write(traced, saved, None)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: iter(representative_data)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        try:
            content = converter.convert()
        except Exception as error:  # the converter raises whatever its passes run into
            raise ExportError(_reason(error)) from error
    if len(content) > LARGEST_FILE:
        raise ExportError(f"One LiteRT file holds 2 GB at most. This one would have {len(content) / 1e9:.1f} GB")
    return content


def _reason(error):
    """What the converter means: ops that it lacks are listed deep in its message."""
    text = str(error)
    lacking = re.findall(r"^\s*(?:Flex|TF Select|Custom) ops?: (.+)$", text, re.MULTILINE | re.IGNORECASE)
    if lacking:
        return f"The model holds ops that LiteRT lacks: {', '.join(ops.strip() for ops in lacking)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    line = next((line for line in lines if "error:" in line), lines[0])
    return f"TensorFlow's converter could not convert the model: {type(error).__name__}: {line}"


def operators(content):
    """How often each operator is in the bytes of a file, all subgraphs counted; foreign ones as `custom NAME`."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(content, 0)
    codes = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the second is 8 bits wide, of older files
        custom = number == schema.BuiltinOperator.CUSTOM
        codes.append(f"custom {code.CustomCode().decode()}" if custom else names[number])
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    return collections.Counter(
        codes[graph.Operators(index).OpcodeIndex()] for graph in graphs for index in range(graph.OperatorsLength())
    )


def _refuse_foreign(nodes):
    foreign = [f"{name.removeprefix('custom ')} ({count})" for name, count in nodes.items() if "custom" in name]
    if foreign:
        raise ExportError(f"The file would hold ops that stock LiteRT lacks: {', '.join(foreign)}")
