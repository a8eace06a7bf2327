# SPDX-License-Identifier: Apache-2.0
"""Lets the ops be called on the symbolic tensors of functional models, as the ops of Keras can."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import tensorflow as tf

from keras_dynfilter.ops.backends.jit_layer import JitLayer

Op = TypeVar("Op", bound=Callable[..., tf.Tensor])

# Keras 2 has the class under a private name.
_KERAS_TENSOR = keras.KerasTensor if hasattr(keras, "KerasTensor") else keras.__internal__.KerasTensor
_ops: dict[str, Callable[..., tf.Tensor]] = {}


@keras.saving.register_keras_serializable("keras_dynfilter")
class OpLayer(JitLayer):
    """Calls an op in a functional model. `keras_dynfilter.ops` makes this layer when an op receives symbolic tensors.

    Args:
        op: Name of the op in `keras_dynfilter.ops`.
        arguments: Dict of the arguments of the op that are not tensors.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the tensors of the op.

    Output shape:
        The shape of the result of the op.
    """

    def __init__(self, op: str, arguments: dict[str, Any], **kwargs: Any):
        super().__init__(**{"name": _unique_name(op), "autocast": False, **kwargs})
        self.op = op
        self.arguments = arguments
        self.built = True

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return _ops[self.op](*inputs, **self.arguments)

    def compute_output_spec(self, inputs: list[Any]) -> Any:
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
        outputs = tf.function(self.call, autograph=False).get_concrete_function(specs).structured_outputs
        return _KERAS_TENSOR(outputs.shape.as_list(), outputs.dtype.name)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"op": self.op, "arguments": self.arguments})
        return config


def accepts_keras_tensors(op: Op) -> Op:
    """Decorates an op: a call on symbolic tensors of Keras adds an `OpLayer` to the model.

    The tensors of the op are its parameters with the type hint `tf.Tensor`.
    """
    signature = inspect.signature(op)
    tensors = [name for name, parameter in signature.parameters.items() if parameter.annotation is tf.Tensor]
    _ops[op.__name__] = op

    @functools.wraps(op)
    def call(*args, **kwargs):
        if _KERAS_TENSOR not in map(type, (*args, *kwargs.values())):
            return op(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        inputs = [arguments.pop(name) for name in tensors]
        return OpLayer(op.__name__, dict(arguments))(inputs)

    return call  # type: ignore[return-value]


def _unique_name(op):
    """Returns the name of the op, with a number from the second layer on, as Keras names its layers."""
    number = keras.backend.get_uid(op)
    return op if number == 1 else f"{op}_{number - 1}"
