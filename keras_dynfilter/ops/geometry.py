# SPDX-License-Identifier: Apache-2.0
"""Window geometry: the normalised arguments of every op and the one formula of the output size."""

import dataclasses
import numbers

from keras_dynfilter.ops.checks import MOST, choice, pair, positive

PADDINGS = ("same", "valid")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A sliding window: its size, strides, dilation, padding, and the number of heads the channels are split into.

    `padding="same"` pads `dilation * (size - 1) / 2` on both sides, so that the window of output `i` is centred on
    input `i * stride`. TensorFlow's SAME is another rule for strides above 1.
    """

    kernel_size: tuple
    strides: tuple = (1, 1)
    dilation_rate: tuple = (1, 1)
    padding: str = "same"
    heads: int = 1

    @classmethod
    def make(cls, kernel_size, strides=1, dilation_rate=1, padding="same", heads=1, even=False):
        """Normalises and checks the arguments of a public function. `even` allows windows of even size."""
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
        if max(*geometry.extent, geometry.heads * geometry.taps) > MOST:
            raise ValueError(
                "Expected a window of fewer than 2^31 taps and pixels across. Received: "
                f"kernel_size={kernel_size}, dilation_rate={geometry.dilation_rate}, heads={geometry.heads}"
            )
        return geometry

    @property
    def taps(self):
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def extent(self):
        """Height and width that the dilated window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate))

    @property
    def pads(self):
        """`((top, bottom), (left, right))`. Even windows, which have no centre, pad one more at the end."""
        if self.padding == "valid":
            return (0, 0), (0, 0)
        return tuple(((e - 1) // 2, e // 2) for e in self.extent)

    def output_size(self, size, axis):
        """Output size along `axis` (0 vertical, 1 horizontal) for an input of `size`: an int, None, or a tensor."""
        if size is None:
            return None
        steps = size + sum(self.pads[axis]) - self.extent[axis]
        if isinstance(size, numbers.Integral):
            return max(steps // self.strides[axis] + 1, 0)
        return steps // self.strides[axis] + 1

    def output_shape(self, inputs_shape):
        """`(Ho, Wo)` for a channels-last `inputs_shape`, with None where a size is unknown."""
        return tuple(self.output_size(inputs_shape[1 + axis], axis) for axis in (0, 1))
