# SPDX-License-Identifier: Apache-2.0
"""One function through tf2onnx: as a model of its own, or in the place of a node of another one."""

import concurrent.futures
import contextlib
import logging

from keras_dynfilter.export.report import ExportError


def convert(function, specs, opset, handlers=None):
    """A `ModelProto` of a `tf.function` of inputs as the specs say."""
    import tf2onnx

    handlers = {"SelectV2": (_select, []), **(handlers or {})}
    with _quiet("tf2onnx"):
        try:
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=specs, opset=opset, custom_op_handlers=handlers
            )
        except Exception as error:  # tf2onnx raises whatever its handlers run into
            raise ExportError(f"tf2onnx could not convert the model: {type(error).__name__}: {error}") from error
    return model


def _select(context, node, name, args):
    """`tf.where` as Where. By itself tf2onnx makes products with 0 and 1 of it, in which the Inf or NaN that the
    condition excludes becomes a NaN of the result."""
    node.type = "Where"


def expand(context, node, function, specs):
    """Replaces, within a handler, a node by the nodes of a `tf.function` of its inputs."""
    import onnx

    # In a thread of its own: the graph that is being converted is the default graph of this one.
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
                # One for each use: tf2onnx changes axes in place, and would change what else has the same numbers.
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


@contextlib.contextmanager
def _quiet(name):
    """Silences a logger: what goes wrong is raised, not logged."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
