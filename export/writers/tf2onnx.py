# SPDX-License-Identifier: Apache-2.0
"""Converts a function with tf2onnx: to a model, or to nodes that replace a node of another model."""

import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_dynfilter.export.layer_scopes import LayerScopes
from keras_dynfilter.export.report import WAY_OUT, ExportError, first_line


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

    handlers = {"SelectV2": (_select, []), **(handlers or {})}
    with _failures() as failures:
        try:
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=specs, opset=opset, custom_op_handlers=handlers
            )
        except Exception as error:  # tf2onnx raises exceptions of many classes
            raise ExportError(f"tf2onnx could not convert the model: {type(error).__name__}: {error}") from error
    for node, error in failures:
        layer = scopes and scopes.layer(node)
        place = f"the op {node!r}" + (f" of the layer {layer}" if layer else "")
        raise ExportError(f"tf2onnx could not convert {place}: {type(error).__name__}: {first_line(error)}. {WAY_OUT}")
    return model


def _select(context: Any, node: Any, name: str, args: list) -> None:
    """Converts `tf.where` to Where.

    tf2onnx itself converts it to products with 0 and 1. An Inf or NaN that the condition excludes then makes the result
    NaN.
    """
    node.type = "Where"


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
