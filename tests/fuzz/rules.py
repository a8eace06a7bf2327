# SPDX-License-Identifier: Apache-2.0
"""States which calls of a raw op are correct, and computes the shape of the result.

This is a second, independent statement of the rules in `custom_ops/cc/arguments.h`.
"""

import dataclasses
import math

from keras_dynfilter.ops.backends.raw_ops import RAW_OPS, RawOp

OPS = {raw_op.name: raw_op for raw_op in RAW_OPS}
LARGEST = 2**31 - 1
# A call with a tensor of more elements may be refused for its size, or for want of memory.
ALWAYS_ACCEPTED = 2**26


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The sizes of a correct call.

    Attributes:
        image: `(batch, height, width, channels)`.
        out_size: Height and width of the output.
        kernel, strides, dilation, pad: Pairs.
        heads: Number of heads.
        kind: The filter kind.
    """

    image: tuple
    out_size: tuple
    kernel: tuple
    strides: tuple
    dilation: tuple
    pad: tuple
    heads: int
    kind: str

    def shape(self, operand: str) -> tuple:
        batch, *_, channels = self.image
        return {
            "inputs": self.image,
            "input_size": (2,),
            "spatial": (batch, *self.out_size, self.heads * math.prod(self.kernel)),
            "channel": (batch, *self.kernel, channels),
            "upstream": (batch, *self.out_size, channels),
        }[operand]

    def is_large(self, raw_op: RawOp) -> bool:
        """Returns whether the call may be refused for its size."""
        shapes = [self.shape(operand) for operand in (*raw_op.inputs, raw_op.wrt or "upstream")]
        elements = [math.prod(max(size, 1) for size in shape) for shape in shapes]
        return max(map(max, shapes)) > LARGEST or max(elements) > ALWAYS_ACCEPTED


class Incorrect(Exception):
    """Says why a call is not correct."""


def kind_of(raw_op: RawOp, attributes: dict) -> str:
    return attributes.get("combine", raw_op.kinds[0]) if "combine" in raw_op.attributes else raw_op.kinds[0]


def out_size(size: int, kernel: int, stride: int, dilation: int, pad: int) -> int:
    steps = size + 2 * pad - (kernel - 1) * dilation - 1
    return 0 if steps < 0 else steps // stride + 1


def check(raw_op: RawOp, attributes: dict, shapes: dict, input_size: list | None) -> Geometry:
    """Returns the geometry of a call.

    Args:
        raw_op: The op.
        attributes: By name.
        shapes: Operand -> shape.
        input_size: The values of the operand, if the op has it.

    Raises:
        Incorrect: The op has to refuse the call.
    """

    def expect(condition: bool, text: str) -> None:
        if not condition:
            raise Incorrect(text)

    def pair(name: str) -> tuple:
        return attributes[f"{name}_h"], attributes[f"{name}_w"]

    kernel, strides, dilation = pair("kernel"), pair("stride"), pair("dilation")
    heads = attributes.get("heads", 1)
    expect(all(1 <= number <= LARGEST for number in (*kernel, *strides, *dilation, heads)), "attributes from 1 to 2^31")
    expect(all(number % 2 for number in kernel), "odd kernel")
    expect(all((k - 1) * d < LARGEST for k, d in zip(kernel, dilation)), "extent of the window")
    expect(heads * math.prod(kernel) <= LARGEST, "number of taps")
    expect(attributes["padding"] in ("same", "valid"), "padding")
    kind = kind_of(raw_op, attributes)
    expect(kind in raw_op.kinds, "combine")
    for operand, shape in shapes.items():
        expect(len(shape) == (1 if operand == "input_size" else 4), f"rank of {operand}")
    if raw_op.wrt == "inputs":
        expect(len(input_size) == 2 and all(0 <= size <= 2**48 for size in input_size), "input_size")
        batch, *_, channels = shapes["upstream"]
        image = (batch, *input_size, channels)
    else:
        image = tuple(shapes["inputs"])
    expect(image[3] % heads == 0, "heads divide the channels")
    pad = tuple((k - 1) // 2 * d if attributes["padding"] == "same" else 0 for k, d in zip(kernel, dilation))
    size = tuple(out_size(*axis) for axis in zip(image[1:3], kernel, strides, dilation, pad))
    geometry = Geometry(image, size, kernel, strides, dilation, pad, heads, kind)
    for operand, shape in shapes.items():
        expect(tuple(shape) == geometry.shape(operand), f"shape of {operand}")
    return geometry
