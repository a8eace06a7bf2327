# SPDX-License-Identifier: Apache-2.0
"""Window geometry: the normalised arguments of every op and the one formula of the output size."""

import dataclasses
import numbers

import keras

PADDINGS = ("same", "valid")
DATA_FORMATS = ("channels_last", "channels_first")
MOST = 2**31 - 1  # as in the compiled ops, whose offsets inside a window are 32 bits wide


def integer(value):
    """Whether `value` is an integer. A boolean is none: `heads=True` is a mistake."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive(value, name):
    """Returns `value`, a positive integer."""
    if not integer(value) or value < 1:
        raise ValueError(f"Expected `{name}` to be a positive integer. Received: {name}={value!r}")
    if value > MOST:
        raise ValueError(f"Expected `{name}` to be at most {MOST}. Received: {name}={value!r}")
    return int(value)


def pair(value, name):
    """Returns `value`, a positive integer or a pair of them, as a tuple `(vertical, horizontal)`."""
    values = (value, value) if integer(value) else value
    try:
        values = tuple(values)
        valid = len(values) == 2 and all(integer(v) and v >= 1 for v in values)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"Expected `{name}` to be a positive integer or a pair of them. Received: {name}={value!r}")
    if max(values) > MOST:
        raise ValueError(f"Expected `{name}` to be at most {MOST}. Received: {name}={value!r}")
    return int(values[0]), int(values[1])


def choice(value, name, allowed):
    """Returns `value` if it is one of `allowed`."""
    try:
        valid = value in set(allowed)  # by hash: arrays have none, and would compare element by element
    except TypeError:
        valid = False
    if not valid:
        expected = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"Expected `{name}` to be one of {expected}. Received: {name}={value!r}")
    return value


def layout(data_format):
    """Returns `data_format`, that of Keras for None."""
    data_format = keras.backend.image_data_format() if data_format is None else data_format
    return choice(data_format, "data_format", DATA_FORMATS)


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
