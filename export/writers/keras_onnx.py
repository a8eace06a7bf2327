# SPDX-License-Identifier: Apache-2.0
"""Makes Keras's own `model.export(path, format="onnx")` work for models that use the compiled ops."""

import warnings
from typing import Any

from keras_dynfilter.export.writers import onnx_native, tf2onnx


def register_onnx_handlers() -> None:
    """Registers handlers in tf2onnx so that `model.export(path, format="onnx")` of Keras converts the compiled ops.

    Keras converts models with tf2onnx, which copies unknown ops into the file unchanged, so onnxruntime rejects the
    file. The handlers write the portable form of the compiled ops instead. They stay registered in this process.

    Raises:
        ImportError: tf2onnx is not installed.

    Example:

    >>> export.register_onnx_handlers()
    >>> model.export("model.onnx", format="onnx")
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx uses deprecated names of NumPy
        from tf2onnx.handler import tf_op
    tf_op.register_handler(_expand, 1, list(onnx_native.FORWARD_OPS), "", {})
    for op, handler in onnx_native.STANDARD_HANDLERS.items():
        tf_op.register_handler(handler, 1, [op], "", {})


def _expand(context: Any, node: Any, **kwargs: Any) -> None:
    """Replaces a node of a compiled op with the nodes of its portable form."""
    tf2onnx.expand(context, node, *onnx_native.read(context, node).portable())
