# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of a sliding window, and computes its padding and output size."""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

from keras_dynfilter.ops.checks import MAX_SIZE, choice, pair, positive

PADDINGS = ("same", "valid")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Holds the size, strides, dilation and padding of a window, and the number of heads that share the channels.

    `padding="same"` pads `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, so that the window of output `i`
    is centred on input `i * strides`. TensorFlow's SAME pads differently for strides above 1.

    Pairs have the order `(vertical, horizontal)`.
    """

    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilation_rate: tuple[int, int] = (1, 1)
    padding: str = "same"
    heads: int = 1

    @classmethod
    def make(
        cls,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        dilation_rate: int | Sequence[int] = 1,
        padding: str = "same",
        heads: int = 1,
        even: bool = False,
    ) -> "Geometry":
        """Makes a geometry from the arguments of a public function.

        Args:
            kernel_size: Positive integer or pair; odd, unless `even` is True.
            strides: Positive integer or pair.
            dilation_rate: Positive integer or pair.
            padding: `"same"` or `"valid"`, in upper or lower case.
            heads: Positive integer.
            even: Whether `kernel_size` may be even.

        Raises:
            ValueError: An argument is not as described, or the window is too large for 32-bit offsets.
        """
        kernel_size = pair(kernel_size, "kernel_size")
        if not even and (kernel_size[0] % 2 == 0 or kernel_size[1] % 2 == 0):
            raise ValueError(
                f"Expected `kernel_size` to be odd, so that a window has a centre. Received: kernel_size={kernel_size}"
            )
        padding = padding.lower() if isinstance(padding, str) else padding
        geometry = cls(
            kernel_size,
            pair(strides, "strides"),
            pair(dilation_rate, "dilation_rate"),
            choice(padding, "padding", PADDINGS),
            positive(heads, "heads"),
        )
        if max(*geometry.extent, geometry.heads * geometry.taps) > MAX_SIZE:
            raise ValueError(
                "Expected a window of fewer than 2^31 taps and pixels across. Received: "
                f"kernel_size={kernel_size}, dilation_rate={geometry.dilation_rate}, heads={geometry.heads}"
            )
        return geometry

    @property
    def taps(self) -> int:
        """Number of taps of one filter."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of the dilated window in pixels."""
        height, width = ((size - 1) * dilation + 1 for size, dilation in zip(self.kernel_size, self.dilation_rate))
        return height, width

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Number of zeros `((top, bottom), (left, right))`. If `extent` is even, one more zero is added at the end."""
        if self.padding == "valid":
            return (0, 0), (0, 0)
        vertical, horizontal = (((extent - 1) // 2, extent // 2) for extent in self.extent)
        return vertical, horizontal

    def output_size(self, size: Any, axis: int) -> Any:
        """Computes the output size along `axis` (0: vertical, 1: horizontal).

        Args:
            size: Input size: an integer, None if it is unknown, or a scalar tensor.
            axis: 0 or 1.

        Returns:
            An integer, None or a scalar tensor, like `size`.
        """
        if size is None:
            return None
        last_begin = size + sum(self.pads[axis]) - self.extent[axis]
        if isinstance(size, numbers.Integral):
            return max(last_begin // self.strides[axis] + 1, 0)
        return last_begin // self.strides[axis] + 1

    def output_shape(self, inputs_shape: Sequence) -> tuple:
        """Returns `(out_height, out_width)` for inputs of a channels-last shape, with None for unknown sizes."""
        return tuple(self.output_size(inputs_shape[1 + axis], axis) for axis in (0, 1))
