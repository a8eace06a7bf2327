# SPDX-License-Identifier: Apache-2.0
"""Plain `model.export(path, format="onnx")` of Keras, for models that run on the compiled ops.

Keras converts by tf2onnx, which passes ops it does not know on into the file, and onnxruntime then rejects it. So
tf2onnx gets handlers for our raw ops, which put their portable form in their place.
"""

import concurrent.futures
import importlib.util
import warnings

from keras_dynfilter.export import _onnx, _onnx_native


def register():
    """Registers the handlers, where tf2onnx is installed."""
    if importlib.util.find_spec("tf2onnx") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx has its own about NumPy
        from tf2onnx.handler import tf_op
    tf_op.register_handler(_expand, 1, list(_onnx_native.OPS), "", {})
    tf_op.register_handler(_onnx_native.project_and_pool, 1, [_onnx_native.PROJECT], "", {})


def _expand(context, node, **kwargs):
    """Replaces a raw op by the nodes of its body."""
    import onnx

    configuration = _onnx_native.read(context, node)
    # In a thread of its own: the graph that is being converted is the default graph of this one.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        model = pool.submit(_onnx.convert, *configuration.portable(), context.opset).result()
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
