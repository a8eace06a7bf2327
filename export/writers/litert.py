# SPDX-License-Identifier: Apache-2.0
"""Writes LiteRT files with TensorFlow's converter, in the requested precision. The files use built-in ops only."""

import collections
import pathlib
import re
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from keras_dynfilter.export.report import WAY_OUT, ExportError
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.writers import saved_model

LARGEST_FILE = 2**31 - 1  # limit of the offsets in a FlatBuffer


def write(
    traced: Traced,
    path: pathlib.Path,
    opset: None,
    precision: str,
    representative_data: list[dict[str, np.ndarray]] | None,
) -> dict[str, int]:
    """Writes the traced model to the file `path`. Returns the number of operators of each name.

    Args:
        traced: The traced model.
        path: The file to write.
        opset: None; LiteRT has no opsets.
        precision: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`.
        representative_data: For `"int8"`: a list of inputs, each a dict of arrays by name. Otherwise None.

    Raises:
        ExportError: LiteRT lacks an op of the model, or the model computes in another dtype than float32, or is too
            large.
    """
    other_dtypes = sorted({dtype.name for dtype in traced.dtypes()} - {"float32"})
    if other_dtypes:
        raise ExportError(
            "Only models that compute in float32 can be exported to LiteRT. This model computes in "
            f"{', '.join(other_dtypes)}: load its weights into a model built under the policy float32, and export that "
            "model, with precision='float16' for half the size"
        )
    content = _convert(traced, precision, representative_data)
    operators = count_operators(content)
    _refuse_custom(operators)
    path.write_bytes(content)
    return dict(operators)


def _convert(traced: Traced, precision: str, representative_data: list[dict[str, np.ndarray]] | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter uses a deprecated interpreter of TensorFlow
        saved = pathlib.Path(folder) / "model"
        saved_model.write(traced, saved, None)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: iter(representative_data or ())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        try:
            content = converter.convert()
        except Exception as error:  # the converter raises exceptions of many classes
            raise ExportError(_reason(error, traced)) from error
    if len(content) > LARGEST_FILE:
        raise ExportError(f"One LiteRT file holds 2 GB at most. This one would have {len(content) / 1e9:.1f} GB")
    return content


def _reason(error: Exception, traced: Traced) -> str:
    """Summarizes an error of the converter in one line: the unsupported ops, or the first line with an error."""
    text = str(error)
    unsupported = re.findall(r"^\s*(?:Flex|TF Select|Custom) ops?: (.+)$", text, re.MULTILINE | re.IGNORECASE)
    if unsupported:
        names = {name.strip().removeprefix("Flex") for listed in unsupported for name in listed.split(",")}
        return f"The model holds ops that LiteRT lacks: {traced.describe_ops(dict.fromkeys(names))}. {WAY_OUT}"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    line = next((line for line in lines if "error:" in line), lines[0])
    if "requires element_shape to be static" in line:
        reason = "a loop over an open number of steps and an open batch size. Fix one of them in the model's inputs"
    else:
        reason = f"{type(error).__name__}: {line.rpartition(')): ')[2]}"
    layers = filter(None, map(traced.scopes.layer, re.findall(r'"([^"@]+)@', line)))  # places of the op
    place = next((f"the layer {layer}" for layer in layers), "the model")
    return f"TensorFlow's converter could not convert {place}: {reason}"


def count_operators(content: bytes) -> collections.Counter[str]:
    """Counts the operators of each name in all subgraphs of a file. Custom operators are named `custom NAME`."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(content, 0)
    codes = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # older files use the deprecated field of 8 bits
        custom = number == schema.BuiltinOperator.CUSTOM
        codes.append(f"custom {code.CustomCode().decode()}" if custom else names[number])
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    return collections.Counter(
        codes[graph.Operators(index).OpcodeIndex()] for graph in graphs for index in range(graph.OperatorsLength())
    )


def _refuse_custom(operators: dict[str, int]) -> None:
    prefix = "custom "
    custom = [f"{name.removeprefix(prefix)} ({n})" for name, n in operators.items() if name.startswith(prefix)]
    if custom:
        raise ExportError(f"The file would hold ops that stock LiteRT lacks: {', '.join(custom)}")
