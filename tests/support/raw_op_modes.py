# SPDX-License-Identifier: Apache-2.0
"""Calls raw ops in every mode: eagerly, in graphs with known and with unknown shapes, and compiled by XLA."""

import dataclasses
import re

import tensorflow as tf

MODES = ("eager", "graph", "graph of unknown shapes", "jit", "jit of unknown shapes")
# TensorFlow raises an AssertionError, "Unreachable", for an operand of another dtype in a graph.
ERRORS = (ValueError, TypeError, OverflowError, AssertionError, tf.errors.OpError)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call led to.

    Attributes:
        shapes: The shapes of the results; None if the call was refused.
        text: The error of this package, from "Expected" to the end of its sentence; or the class of another error.
    """

    shapes: list | None = None
    text: str = ""


def outcome(function, inputs, mode, constants=()):
    """Returns the `Outcome` of `function(inputs)`, where `inputs` is a dict of tensors.

    Inputs that are named in `constants` are constants of a graph with known shapes.
    """
    try:
        results = call(function, inputs, mode, constants)
    except ERRORS as error:
        return Outcome(text=text_of(error))
    return Outcome([tuple(result.shape) for result in tf.nest.flatten(results)])


def call(function, inputs, mode, constants=()):
    if mode == "eager":
        return function(inputs)
    unknown = "unknown" in mode
    known = {} if unknown else {name: inputs[name].numpy() for name in constants if name in inputs}
    arguments = {name: value for name, value in inputs.items() if name not in known}
    specs = {name: tf.TensorSpec(None if unknown else value.shape, value.dtype) for name, value in arguments.items()}

    @tf.function(autograph=False, jit_compile=mode.startswith("jit"))
    def traced(arguments):
        return function({**arguments, **{name: tf.constant(value) for name, value in known.items()}})

    return traced.get_concrete_function(specs)(arguments)


def text_of(error):
    """Returns the error text without the places that TensorFlow adds."""
    found = re.search(r"Expected .*?Received: .*?(?= for '\{\{node | \[Op:|\n|$)", str(error))
    return found[0] if found else type(error).__name__
