# SPDX-License-Identifier: Apache-2.0
"""Converts a function with tf2onnx: to a model, or to nodes that replace a node of another model."""

import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dynfilter.export.layer_scopes import LayerScopes
from keras_dynfilter.export.report import WAY_OUT, ExportError, first_line
from keras_dynfilter.export.writers.tf2onnx_handlers import HANDLERS


def convert(
    function: Any,
    specs: list[tf.TensorSpec],
    opset: int,
    handlers: dict[str, tuple[Callable[..., None], list]] | None = None,
    scopes: LayerScopes | None = None,
) -> Any:
    """Converts a `tf.function` to an ONNX `ModelProto`.

    Args:
        function: The `tf.function`.
        specs: Specs of its inputs.
        opset: The ONNX opset.
        handlers: Handlers by TensorFlow op, in addition to the handlers of tf2onnx.
        scopes: The layers by their name scopes, for error texts.

    Raises:
        ExportError: tf2onnx cannot convert the function.
    """
    import tf2onnx

    handlers = {**HANDLERS, **(handlers or {})}
    with _failures() as failures:
        try:
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=specs, opset=opset, custom_op_handlers=handlers
            )
        except Exception as error:  # tf2onnx raises exceptions of many classes
            raise ExportError(f"tf2onnx could not convert the model: {type(error).__name__}: {error}") from error
    for node, failure in failures:
        layer = scopes and scopes.layer(node)
        place = f"the op {node!r}" + (f" of the layer {layer}" if layer else "")
        raise ExportError(
            f"tf2onnx could not convert {place}: {type(failure).__name__}: {first_line(failure)}. {WAY_OUT}"
        )
    _store_constants(model, function, specs)
    return model


def _store_constants(model: Any, function: Any, specs: list[tf.TensorSpec]) -> None:
    """Stores tensors that the function has captured in the model. tf2onnx makes them inputs of the model."""
    import onnx

    captures = function.get_concrete_function(*specs).graph.captures
    captured = {inner.name: outer for outer, inner in captures if outer.dtype not in (tf.resource, tf.string)}
    for value in list(model.graph.input):
        if value.name in captured:
            model.graph.input.remove(value)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(captured[value.name]), value.name))


def expand(context: Any, node: Any, function: Any, specs: list[tf.TensorSpec]) -> None:
    """Replaces a node with the nodes of a `tf.function` of the node's inputs. A handler of tf2onnx calls it.

    Args:
        context: The graph that tf2onnx converts.
        node: The node to replace; it has one output.
        function: The `tf.function`.
        specs: Specs of its inputs.
    """
    import onnx

    # Another thread, because in this thread the default graph is the graph that tf2onnx converts.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        model = pool.submit(convert, function, specs, context.opset).result()
    model = onnx.shape_inference.infer_shapes(model)
    graph, prefix = model.graph, node.name + "/"
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    names = dict(zip((value.name for value in graph.input), node.input))
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}

    (result,), dtype, shape = node.output, context.get_dtype(node.output[0]), context.get_shape(node.output[0])
    context.remove_node(node.name)
    for index, inner in enumerate(graph.node):
        outputs = [prefix + name for name in inner.output]
        inputs = [names.get(name, "") for name in inner.input]
        for position, name in enumerate(inner.input):
            if name in constants:
                # One constant for each use: tf2onnx changes axes in place, and a shared constant would also change for
                # its other uses.
                constant = context.make_const(f"{prefix}{index}/{position}/{name}", constants[name])
                inputs[position] = constant.output[0]
        context.make_node(
            inner.op_type,
            inputs,
            {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in inner.attribute},
            name=f"{prefix}{index}",
            outputs=outputs,
            shapes=[None] * len(outputs),
            dtypes=[types.get(name) for name in inner.output],
            infer_shape_dtype=False,
        )
        names.update(zip(inner.output, outputs))
    last = names[graph.output[0].name]
    context.make_node("Identity", [last], outputs=[result], dtypes=[dtype], shapes=[shape])


class _Failures(logging.Handler):
    """Collects the nodes that tf2onnx could not convert, with the exceptions. It logs them, and leaves the nodes."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[tuple[str, BaseException]] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and isinstance(record.args, tuple):
            self.found.append((str(record.args[0]), error))


@contextlib.contextmanager
def _failures() -> Iterator[list[tuple[str, BaseException]]]:
    """Silences tf2onnx. Yields a list that receives the nodes that it could not convert, with the exceptions."""
    logger, handler = logging.getLogger("tf2onnx"), _Failures()
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers
    logger.setLevel(logging.ERROR)
    logger.propagate, logger.handlers = False, [handler]
    try:
        yield handler.found
    finally:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
