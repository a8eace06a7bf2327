# SPDX-License-Identifier: Apache-2.0
"""Plain `model.export(path, format="onnx")` of Keras, for models that run on the compiled ops.

Keras converts by tf2onnx, which passes ops it does not know on into the file, and onnxruntime then rejects it. So
tf2onnx gets handlers for our raw ops, which put their portable form in their place.
"""

import importlib.util
import warnings

from keras_dynfilter.export.writers import onnx_native, tf2onnx


def register():
    """Registers the handlers, where tf2onnx is installed."""
    if importlib.util.find_spec("tf2onnx") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx has its own about NumPy
        from tf2onnx.handler import tf_op
    tf_op.register_handler(_expand, 1, list(onnx_native.OPS), "", {})
    for op, handler in onnx_native.HANDLERS.items():
        tf_op.register_handler(handler, 1, [op], "", {})


def _expand(context, node, **kwargs):
    """Replaces a raw op by the nodes of its body."""
    tf2onnx.expand(context, node, *onnx_native.read(context, node).portable())
