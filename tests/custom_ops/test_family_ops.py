# SPDX-License-Identifier: Apache-2.0
"""The list of ops in C++, the table of raw ops in Python, and the op definitions in TensorFlow agree."""

import re

import pytest
from tensorflow.python.framework import op_def_registry

from keras_dynfilter.custom_ops import sources
from keras_dynfilter.ops.backends.raw_ops import PREFIX, RAW_OPS

ROWS = re.findall(
    r"^FAMILY_OP\((\w+), k(\w+), k(\w+)\)$", (sources.FOLDER / "family_ops.inc").read_text(), re.MULTILINE
)


def test_both_lists_have_the_same_ops():
    derivatives = {None: "Output", "inputs": "Inputs", "spatial": "Spatial", "channel": "Channel"}
    table = [(op.name, op.kinds[0].capitalize(), derivatives[op.wrt]) for op in RAW_OPS]
    assert table == ROWS


@pytest.mark.parametrize("op", RAW_OPS, ids=lambda op: op.name)
def test_definition(op, native_library):
    definition = op_def_registry.get(PREFIX + op.name)
    assert [argument.name for argument in definition.input_arg] == list(op.inputs.values())
    assert [argument.name for argument in definition.output_arg] == ["outputs"]
    assert {attribute.name for attribute in definition.attr} == {"T", *op.attributes}
