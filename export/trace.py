# SPDX-License-Identifier: Apache-2.0
"""Traces a model to a graph, from which the writers of all formats start."""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.export.layer_scopes import LayerScopes
from keras_dynfilter.export.report import Axes, ExportError
from keras_dynfilter.export.signature import Signature, axis_names
from keras_dynfilter.ops import implementation
from keras_dynfilter.ops.backends import scope
from keras_dynfilter.ops.backends.raw_ops import PREFIX

PYTHON_FUNCTIONS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


@dataclasses.dataclass(frozen=True)
class Traced:
    """A traced model. Its graph has the ops that the file will contain.

    Attributes:
        signature: The `Signature` of the model.
        function: The `tf.function` that takes the inputs in order and returns the outputs by name.
        concrete: The only concrete function of `function`.
        ops: `"portable"` or `"native"`.
        scopes: The layers of the model by their name scopes in the graph.
        tables: Lookup tables and other resources of the model that a SavedModel has to hold.
    """

    signature: Signature
    function: Any
    concrete: Any
    ops: str
    scopes: LayerScopes = dataclasses.field(default_factory=LayerScopes)
    tables: tuple[Any, ...] = ()

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Specs of the inputs, in order."""
        return list(self.signature.specs.values())

    @property
    def inputs(self) -> dict[str, tuple[str, Axes]]:
        """Dtype and axes of every input by name. An axis is given by its size, or by a name if it is open."""
        several = len(self.specs) > 1
        return {spec.name: (spec.dtype.name, _axes(spec.shape, spec.name if several else None)) for spec in self.specs}

    @property
    def outputs(self) -> dict[str, tuple[str, Axes]]:
        """Dtype and axes of every output by name. Open axes other than the batch are named after the output."""
        tensors = self.concrete.structured_outputs
        return {name: (tensor.dtype.name, _axes(tensor.shape, name)) for name, tensor in tensors.items()}

    def retrace(self, specs: list[tf.TensorSpec]) -> Any:
        """Returns the concrete function for inputs of other shapes, in order."""
        function = tf.function(self.function.python_function, input_signature=specs)
        with _implementation(self.ops):
            return function.get_concrete_function()

    def graph_nodes(self) -> list[Any]:
        """Returns every node except function calls. Nodes inside functions (loops, branches) are included."""
        graph = self.concrete.graph.as_graph_def()
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return [node for node in nodes if node.op not in functions]

    def describe_ops(self, counts: Mapping[str, int | None]) -> str:
        """Returns a list of ops, each with its count, if it is known, and the layers that hold the op."""
        layers = self.scopes.layers_of_ops(self.concrete.graph.as_graph_def(), counts)
        texts = []
        for op, count in sorted(counts.items()):
            details = [] if count is None else [str(count)]
            if layers.get(op):
                details.append(f"in the layer{'s' * (len(layers[op]) > 1)} {', '.join(layers[op])}")
            texts.append(f"{op} ({', '.join(details)})" if details else op)
        return ", ".join(texts)

    def dtypes(self) -> set[tf.DType]:
        """Returns the floating-point dtypes that the graph computes in."""
        tensors = [tensor for op in self.concrete.graph.get_operations() for tensor in op.outputs]
        return {tensor.dtype.base_dtype for tensor in tensors if tensor.dtype.is_floating}


def trace(model: keras.Model, signature: Signature, ops: str, unroll: bool = False) -> Traced:
    """Traces `model` again, because graphs that Keras has traced earlier may hold other ops.

    Args:
        model: The model.
        signature: Its `Signature`.
        ops: `"portable"` or `"native"`.
        unroll: Whether recurrent layers with a fixed number of steps become copies of their step in place of a loop.

    Raises:
        ExportError: The model cannot be traced, an output is not a dense tensor of known rank, or the graph holds
            Python functions, or ops that neither stock TensorFlow nor, with `ops="native"`, this package has.
    """

    scopes = LayerScopes()

    def serve(*inputs):
        with scopes.recorded(), _unrolled(model if unroll else None):
            outputs = signature.call(model, dict(zip(signature.specs, inputs)))
        return {name: tf.identity(value) for name, value in outputs.items()}

    specs = list(signature.specs.values())
    function = tf.function(serve, input_signature=specs)
    with _implementation(ops):
        try:
            concrete = function.get_concrete_function()
            if _calls_xla(concrete.graph):
                function, scopes = tf.function(serve, input_signature=specs), LayerScopes()
                with _inlined_functions():
                    concrete = function.get_concrete_function()
        except Exception as error:  # layers raise exceptions of many classes
            raise ExportError(f"The model cannot be traced on {ops} ops: {error}") from error
    for name, value in concrete.structured_outputs.items():
        if not isinstance(value, tf.Tensor):
            raise ExportError(f"Expected dense outputs. Received: {name}, {type(value).__name__}")
    traced = Traced(signature, function, concrete, ops, scopes, _tables(model))
    _refuse_unknown_ops(traced)
    return traced


def _calls_xla(graph: Any) -> bool:
    """Returns whether the graph, or a function in it, calls a function that XLA compiles.

    Keras computes convolutions with groups in one. Runtimes other than TensorFlow cannot run such a call.
    """
    definition = graph.as_graph_def()
    bodies = (function.node_def for function in definition.library.function)
    return any(node.attr["_XlaMustCompile"].b for node in itertools.chain(definition.node, *bodies))


@contextlib.contextmanager
def _inlined_functions() -> Iterator[None]:
    """Traces nested functions as parts of the function that calls them."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _unrolled(model: keras.Model | None) -> Iterator[None]:
    """Unrolls the recurrent layers of a model whose number of steps is fixed."""
    changed = [layer for layer in _layers(model) if getattr(layer, "unroll", None) is False and _has_fixed_steps(layer)]
    for layer in changed:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in changed:
            layer.unroll = False


def _has_fixed_steps(layer: keras.layers.Layer) -> bool:
    try:
        shape = layer.input.shape
    except (AttributeError, ValueError):  # a layer inside another one, or in a subclassed model
        shape = (layer.get_build_config() or {}).get("input_shape")
    return shape is not None and len(shape) > 1 and shape[1] is not None


def _layers(model: keras.Model | None) -> list[keras.layers.Layer]:
    """Returns all layers of a model, including the layers inside layers."""
    if model is None:
        return []
    found = [value for value in tf.train.TrackableView(model).descendants() if isinstance(value, keras.layers.Layer)]
    return list({id(layer): layer for layer in found}.values())


@contextlib.contextmanager
def _implementation(ops: str) -> Iterator[None]:
    """Selects the implementation whose ops a file with portable or native ops holds."""
    with implementation("composite" if ops == "portable" else "native"), scope.inference_only():
        yield


def _axes(shape: tf.TensorShape, owner: str | None) -> Axes:
    """Returns the sizes of `shape`, with names for open axes. All names except the batch get the prefix `owner`."""
    if shape.rank is None:
        raise ExportError(f"Expected tensors of known rank. Received: {owner} of unknown rank")
    names = axis_names(shape) if shape.rank else []
    names = [name if index == 0 or owner is None else f"{owner}_{name}" for index, name in enumerate(names)]
    return [name if size is None else size for size, name in zip(shape.as_list(), names)]


def _tables(model: keras.Model) -> tuple[Any, ...]:
    """Returns the lookup tables of a model, and other resources than variables."""
    try:
        objects = tf.train.TrackableView(model).descendants()
    except ValueError:  # a model of Keras 2 changed a list of layers; a table in it makes TensorFlow refuse to save it
        return ()
    return tuple(value for value in objects if isinstance(value, tf.saved_model.experimental.TrackableResource))


def _refuse_unknown_ops(traced: Traced) -> None:
    """Raises an `ExportError` if the graph holds an op that no other process could run."""
    counts = collections.Counter(node.op for node in traced.graph_nodes())
    own = {op: count for op, count in counts.items() if op in PYTHON_FUNCTIONS}
    if own:
        raise ExportError(
            f"The model calls Python functions, which no file can hold: {traced.describe_ops(own)}. Compute them with "
            "ops of TensorFlow or Keras, or leave these layers out of the exported model"
        )
    is_compiled = traced.ops == "native"
    missing = {
        op: count
        for op, count in counts.items()
        if not hasattr(tf.raw_ops, op) and not (is_compiled and op.startswith(PREFIX))
    }
    if missing:
        kind = "no file" if is_compiled else "no portable file"
        listed = traced.describe_ops(missing)
        raise ExportError(f"The model holds ops that stock TensorFlow lacks, so {kind} can be made: {listed}")
