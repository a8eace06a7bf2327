# SPDX-License-Identifier: Apache-2.0
"""Converts ops of TensorFlow for which tf2onnx has no handler, or one whose results differ."""

from collections.abc import Callable
from typing import Any

import numpy as np

DFT_OPSET = 17  # the first opset with DFT
RESIZE_MODES = {"ResizeBilinear": "linear", "ResizeBicubic": "cubic", "ResizeNearestNeighbor": "nearest"}


def _select(context: Any, node: Any, name: str, args: list) -> None:
    """Converts `tf.where` to Where.

    tf2onnx itself converts it to products with 0 and 1. An Inf or NaN that the condition excludes then makes the result
    NaN.
    """
    node.type = "Where"


def _leave(context: Any, node: Any, name: str, args: list) -> None:
    """Leaves an op that ONNX lacks, so that the error lists it with the other ops that ONNX lacks."""


def _resize(context: Any, node: Any, name: str, args: list) -> None:
    """Converts a resizing of images by the sizes of the result.

    tf2onnx itself writes scales of float32 where all sizes are known, and runtimes may compute other sizes from them.
    """
    from onnx import TensorProto
    from tf2onnx import utils

    images, target = node.input
    mode = RESIZE_MODES[node.type]
    dtype, shapes, result = node.output_dtypes[0], node.output_shapes, node.output[0]
    centers, corners = (
        name in node.attr and bool(node.get_attr_int(name)) for name in ("half_pixel_centers", "align_corners")
    )
    coordinates = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = "round_prefer_ceil" if corners or centers else "floor"
    if mode == "cubic":
        attributes.update(cubic_coeff_a=-0.5, exclude_outside=1)
    is_cast = context.get_dtype(images) != dtype  # TensorFlow resizes integers as float32
    context.remove_node(node.name)

    def constant(*values: int) -> str:
        return context.make_const(utils.make_name(f"{node.name}/sizes"), np.array(values, np.int64)).output[0]

    def make(op: str, *inputs: str, **attr: Any) -> str:
        return context.make_node(op, list(inputs), attr=attr).output[0]

    def joined_sizes(*parts: str) -> str:
        return make("Concat", *parts, axis=0)

    if is_cast:
        images = make("Cast", images, to=dtype)
    images = make("Transpose", images, perm=[0, 3, 1, 2])
    shape = make("Shape", images)
    outer, target = make("Slice", shape, constant(0), constant(2)), make("Cast", target, to=TensorProto.INT64)
    if mode == "cubic":
        # onnxruntime moves a transposition past the resizing, and then refuses its own layout. It does not move a
        # reshape: every channel becomes an image.
        inner = make("Slice", shape, constant(2), constant(4))
        images = make("Reshape", images, joined_sizes(constant(-1, 1), inner))
        channels = make("Slice", make("Shape", images), constant(0), constant(2))
        resized = make("Resize", images, "", "", joined_sizes(channels, target), **attributes)
        resized = make("Reshape", resized, joined_sizes(outer, target))
    else:
        resized = make("Resize", images, "", "", joined_sizes(outer, target), **attributes)
    attr = {"perm": [0, 2, 3, 1]}
    context.make_node("Transpose", [resized], attr, name=node.name, outputs=[result], shapes=shapes, dtypes=[dtype])


def _erfc(context: Any, node: Any, name: str, args: list) -> None:
    """Converts the complementary error function, which the exact GELU uses, to 1 - Erf."""
    import onnx

    dtype, shapes, (value,), outputs = node.output_dtypes, node.output_shapes, node.input, node.output
    context.remove_node(node.name)
    one = context.make_const(f"{node.name}/one", np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtype[0]))).output[0]
    erf = context.make_node("Erf", [value], dtypes=dtype, shapes=shapes).output[0]
    context.make_node("Sub", [one, erf], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtype)


def _bucketize(context: Any, node: Any, name: str, args: list) -> None:
    """Converts the search of the interval of each value: the number of boundaries that are not above it."""
    from onnx import TensorProto

    dtypes, shapes, (value,), outputs = node.output_dtypes, node.output_shapes, node.input, node.output
    boundaries = np.array(node.get_attr("boundaries").floats, np.float32)
    context.remove_node(node.name)
    last = context.make_const(f"{node.name}/last", np.array([-1])).output[0]
    limits = context.make_const(f"{node.name}/boundaries", boundaries).output[0]
    value = context.make_node("Cast", [value], attr={"to": TensorProto.FLOAT}).output[0]
    column = context.make_node("Unsqueeze", [value, last]).output[0]
    above = context.make_node("GreaterOrEqual", [column, limits]).output[0]
    counted = context.make_node("Cast", [above], attr={"to": TensorProto.INT32}).output[0]
    attr = {"keepdims": 0}
    context.make_node("ReduceSum", [counted, last], attr, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _rfft(context: Any, node: Any, name: str, args: list) -> None:
    """Converts a Fourier transform whose real and imaginary parts are used to DFT. A complex number is a pair there.

    tf2onnx itself converts it only if its absolute value is used.
    """
    from tf2onnx.handler import tf_op

    consumers = {consumer.type for consumer in context.find_output_consumers(node.output[0])}
    length, shape = node.inputs[1], context.get_shape(node.input[0])
    if not consumers <= {"Real", "Imag"}:
        function, options = tf_op.create_mapping(context.opset, {})[node.type]
        function(context, node, **options)
    elif context.opset >= DFT_OPSET and length.is_const() and shape is not None:
        (result,), (value, _) = node.output, node.input
        count = int(length.get_tensor_value(as_list=False).reshape(-1)[0])
        dtype = context.get_dtype(value)
        context.remove_node(node.name)
        last = context.make_const(f"{node.name}/last", np.array([-1])).output[0]
        size = context.make_const(f"{node.name}/length", np.array(count)).output[0]
        real = context.make_node("Unsqueeze", [value, last]).output[0]
        attr = {"axis": len(shape) - 1, "onesided": 1}
        shapes = [[*shape[:-1], count // 2 + 1, 2]]
        context.make_node("DFT", [real, size], attr, name=node.name, outputs=[result], shapes=shapes, dtypes=[dtype])


def _part(index: int) -> Callable[..., None]:
    """Returns a handler of the real part (0) or the imaginary part (1) of a complex number."""

    def convert(context: Any, node: Any, name: str, args: list) -> None:
        if node.inputs[0].type != "DFT":
            return
        (value,), outputs, shapes, dtypes = node.input, node.output, node.output_shapes, node.output_dtypes
        context.remove_node(node.name)
        part = context.make_const(f"{node.name}/part", np.array(index)).output[0]
        attr = {"axis": -1}
        context.make_node("Gather", [value, part], attr, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)

    return convert


# Handlers of standard ops by op.
HANDLERS: dict[str, tuple[Callable[..., None], list]] = {
    "SelectV2": (_select, []),
    "Erfc": (_erfc, []),
    "Bucketize": (_bucketize, []),
    "RFFT": (_rfft, []),
    "Real": (_part(0), []),
    "Imag": (_part(1), []),
    **dict.fromkeys(RESIZE_MODES, (_resize, [])),
    # tf2onnx itself would repeat the nearest pixel.
    "ResizeArea": (_leave, []),
    "LookupTableFindV2": (_leave, []),
}
