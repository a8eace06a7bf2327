# SPDX-License-Identifier: Apache-2.0
"""The graph that every format is written from."""

import collections
import dataclasses

import tensorflow as tf

from keras_dynfilter.export import signature as signature_module
from keras_dynfilter.export.report import ExportError
from keras_dynfilter.ops import implementation
from keras_dynfilter.ops.backends import scope


@dataclasses.dataclass(frozen=True)
class Traced:
    """A model traced on the ops it is to be exported with.

    Attributes:
        signature: The `Signature` it was traced for.
        function: `tf.function` of the inputs in order, which returns the outputs by name.
        concrete: Its one concrete function.
    """

    signature: object
    function: object
    concrete: object

    @property
    def specs(self):
        return list(self.signature.specs.values())

    @property
    def inputs(self):
        """`(dtype, axes)` by name; an axis is its size, or a name where it has any."""
        own = len(self.specs) > 1
        return {spec.name: (spec.dtype.name, _axes(spec.shape, spec.name if own else None)) for spec in self.specs}

    @property
    def outputs(self):
        """As `inputs`; an axis of unknown size gets a name of its own, for it may differ from that of the input."""
        tensors = self.concrete.structured_outputs
        return {name: (tensor.dtype.name, _axes(tensor.shape, name)) for name, tensor in tensors.items()}

    def graph_nodes(self):
        """Every node, those inside functions of the graph (loops, branches) too, calls left out."""
        graph = self.concrete.graph.as_graph_def()
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return [node for node in nodes if node.op not in functions]

    def dtypes(self):
        """Floating-point dtypes the graph computes in."""
        tensors = [tensor for op in self.concrete.graph.get_operations() for tensor in op.outputs]
        return {tensor.dtype.base_dtype for tensor in tensors if tensor.dtype.is_floating}


def trace(model, signature, ops):
    """Traces `model` afresh: a function that Keras holds already keeps the ops it was traced with."""

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
        _refuse_foreign_ops(traced)
    return traced


def _axes(shape, owner):
    """Sizes of `shape`, an axis name for each unknown one; those beyond the batch are prefixed with `owner`."""
    if shape.rank is None:
        raise ExportError(f"Expected tensors of known rank. Received: {owner} of unknown rank")
    names = signature_module.axis_names(shape) if shape.rank else []
    own = [axis if index == 0 or owner is None else f"{owner}_{axis}" for index, axis in enumerate(names)]
    return [axis if size is None else size for size, axis in zip(shape.as_list(), own)]


def _refuse_foreign_ops(traced):
    foreign = collections.defaultdict(list)
    for node in traced.graph_nodes():
        if not hasattr(tf.raw_ops, node.op):
            foreign[node.op].append(node.name)
    if foreign:
        listed = "; ".join(f"{op} ({len(nodes)}, first {nodes[0]})" for op, nodes in sorted(foreign.items()))
        raise ExportError(f"The model holds ops that stock TensorFlow lacks, so no portable file can be made: {listed}")
