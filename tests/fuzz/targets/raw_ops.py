# SPDX-License-Identifier: Apache-2.0
"""Calls raw ops eagerly, in graphs of known and of unknown shapes, and compiled by XLA."""

import random
from typing import Any

import tensorflow as tf

from tests.fuzz import problems, tensorflow_calls

setup, clean = tensorflow_calls.setup, tensorflow_calls.clean


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    value = problems.draw(random, repeated)
    if mode == "unknown_shapes":
        value["unknown"] = random.choice(("rank", "sizes", "some"))
    if mode in ("graph", "jit"):
        value["constant_size"] = random.random() < 0.5
    return value


def run(value: dict) -> bool:
    call = problems.resolve(value)
    given, exact = problems.operands(call)
    return tensorflow_calls.judge(call, exact, lambda: _compute(call, given, value))


def _compute(call: problems.Call, given: dict, value: dict) -> tf.Tensor:
    function, mode = tensorflow_calls.function_of(call.raw_op), value["mode"]
    arguments = {name: tensorflow_calls.tensor(given[operand]) for operand, name in call.raw_op.inputs.items()}
    if mode == "eager":
        return function(**arguments, **call.attributes)
    constant = (
        {"input_size": arguments.pop("input_size")} if value.get("constant_size") and "input_size" in given else {}
    )

    def traced(operands: dict) -> tf.Tensor:
        return function(**operands, **constant, **call.attributes)

    specs = {name: _spec(tensor, value.get("unknown")) for name, tensor in arguments.items()}
    traced = tf.function(traced, autograph=False, jit_compile=mode == "jit").get_concrete_function(specs)
    return traced(arguments)


def _spec(tensor: tf.Tensor, unknown: str | None) -> tf.TensorSpec:
    shape: Any = tensor.shape
    if unknown == "rank":
        shape = None
    elif unknown == "sizes":
        shape = [None] * tensor.shape.rank
    elif unknown == "some":
        shape = [None if axis % 2 else size for axis, size in enumerate(tensor.shape)]
    return tf.TensorSpec(shape, tensor.dtype)
