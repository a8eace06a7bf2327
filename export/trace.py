# SPDX-License-Identifier: Apache-2.0
"""Traces a model to the graph that every format is written from."""

import collections
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.export.report import Axes, ExportError
from keras_dynfilter.export.signature import Signature, axis_names
from keras_dynfilter.ops import implementation
from keras_dynfilter.ops.backends import scope


@dataclasses.dataclass(frozen=True)
class Traced:
    """A model, traced on the ops that the file is to hold.

    Attributes:
        signature: The `Signature` of the model.
        function: `tf.function` that takes the inputs in order and returns the outputs by name.
        concrete: The only concrete function of `function`.
    """

    signature: Signature
    function: Any
    concrete: Any

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Specs of the inputs, in order."""
        return list(self.signature.specs.values())

    @property
    def inputs(self) -> dict[str, tuple[str, Axes]]:
        """Dtype and axes of every input by name. An axis is its size, or a name if it has any size."""
        several = len(self.specs) > 1
        return {spec.name: (spec.dtype.name, _axes(spec.shape, spec.name if several else None)) for spec in self.specs}

    @property
    def outputs(self) -> dict[str, tuple[str, Axes]]:
        """Dtype and axes of every output by name. The names of open axes differ from the names of the inputs' axes,
        because the sizes may differ."""
        tensors = self.concrete.structured_outputs
        return {name: (tensor.dtype.name, _axes(tensor.shape, name)) for name, tensor in tensors.items()}

    def graph_nodes(self) -> list[Any]:
        """Returns every node except calls of functions; nodes inside functions (loops, branches) are included."""
        graph = self.concrete.graph.as_graph_def()
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return [node for node in nodes if node.op not in functions]

    def dtypes(self) -> set[tf.DType]:
        """Returns the floating-point dtypes that the graph computes in."""
        tensors = [tensor for op in self.concrete.graph.get_operations() for tensor in op.outputs]
        return {tensor.dtype.base_dtype for tensor in tensors if tensor.dtype.is_floating}


def trace(model: keras.Model, signature: Signature, ops: str) -> Traced:
    """Traces `model` anew, because a function that Keras has traced before keeps the ops of that time.

    Args:
        model: The model.
        signature: Its `Signature`.
        ops: `"portable"` or `"native"`.

    Raises:
        ExportError: The model cannot be traced, returns something else than dense tensors, or holds ops of another
            library and `ops` is `"portable"`.
    """

    def serve(*inputs):
        outputs = signature.call(model, dict(zip(signature.specs, inputs)))
        return {name: tf.identity(value) for name, value in outputs.items()}

    function = tf.function(serve, input_signature=list(signature.specs.values()))
    with implementation("composite" if ops == "portable" else "native"), scope.inference_only():
        try:
            concrete = function.get_concrete_function()
        except (NotImplementedError, RuntimeError, TypeError, ValueError, tf.errors.OpError) as error:
            raise ExportError(f"The model cannot be traced on {ops} ops: {error}") from error
    for name, value in concrete.structured_outputs.items():
        if not isinstance(value, tf.Tensor):
            raise ExportError(f"Expected dense outputs. Received: {name}, {type(value).__name__}")
    traced = Traced(signature, function, concrete)
    if ops == "portable":
        _refuse_ops_of_other_libraries(traced)
    return traced


def _axes(shape: tf.TensorShape, owner: str | None) -> Axes:
    """The sizes of `shape`, with a name for each open axis. `owner` precedes the names of axes after the batch."""
    if shape.rank is None:
        raise ExportError(f"Expected tensors of known rank. Received: {owner} of unknown rank")
    names = axis_names(shape) if shape.rank else []
    names = [name if index == 0 or owner is None else f"{owner}_{name}" for index, name in enumerate(names)]
    return [name if size is None else size for size, name in zip(shape.as_list(), names)]


def _refuse_ops_of_other_libraries(traced: Traced) -> None:
    names = collections.defaultdict(list)
    for node in traced.graph_nodes():
        if not hasattr(tf.raw_ops, node.op):
            names[node.op].append(node.name)
    if names:
        listed = "; ".join(f"{op} ({len(nodes)}, first {nodes[0]})" for op, nodes in sorted(names.items()))
        raise ExportError(f"The model holds ops that stock TensorFlow lacks, so no portable file can be made: {listed}")
