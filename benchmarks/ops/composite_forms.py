# SPDX-License-Identifier: Apache-2.0
"""Forms of dynamic filters in standard ops, for `benchmarks.export.portable_forms`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops import dynamic_conv
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import sizes


class Case(NamedTuple):
    """Describes a kind of filter on images of one shape.

    Attributes:
        kind: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`, as in `ops.filter2d`; or, for filters that mix
            channels, `"per_sample"` (`dynamic_conv2d`) or `"per_position"` (`local_conv2d`).
        image: `(batch, height, width, channels)`.
        window: Height and width of the window.
        heads: Number of heads.
        dilation: Dilation rate.
        stride: Stride.
        maps: Number of output channels of filters that mix channels.
    """

    kind: str
    image: tuple[int, int, int, int]
    window: int
    heads: int = 1
    dilation: int = 1
    stride: int = 1
    maps: int = 0

    @property
    def geometry(self) -> Geometry:
        return Geometry.make(self.window, self.stride, self.dilation, heads=self.heads)

    def operand_sizes(self, shrink: int = 1) -> dict[str, tuple[int, int, int]]:
        """Returns batch, height and width of each operand by name. `shrink` divides height and width of the images."""
        batch, height, width, _ = self.image
        images = (batch, max(height // shrink, 1), max(width // shrink, 1))
        outputs = (batch, *(-(-size // self.stride) for size in images[1:]))
        return {"inputs": images, "channel": images, "filters": images, "spatial": outputs}

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the specifications of the operands by name. Batch, height and width are unknown."""
        taps, channels = self.window**2, self.image[-1]
        bank = (self.window, self.window, channels)
        shapes = {"inputs": (None, None, None, channels)}
        if self.kind in ("spatial", "softmax", "mul", "add"):
            shapes["spatial"] = (None, None, None, self.heads * taps)
        if self.kind in ("channel", "mul", "add"):
            shapes["channel"] = (None, *bank)
        if self.kind == "per_sample":
            shapes["filters"] = (None, *bank, self.maps)
        if self.kind == "per_position":
            shapes["filters"] = (None, None, None, *bank, self.maps)
        return {name: tf.TensorSpec(shape, name=name) for name, shape in shapes.items()}

    def compute(self, form: Callable, operands: dict[str, tf.Tensor]) -> tf.Tensor:
        """Applies a form to operands, which are given by name."""
        if "filters" in operands:
            return form(operands["inputs"], operands["filters"], self.geometry)
        spatial, channel = operands.get("spatial"), operands.get("channel")
        return form(operands["inputs"], spatial, channel, self.kind, self.geometry)

    def forms(self) -> dict[str, Callable]:
        """Returns the forms of this case by name. The first form is the one that `keras_dynfilter.ops` uses."""
        if self.kind == "per_sample":
            return PER_SAMPLE
        if self.kind == "per_position":
            return PER_POSITION
        if self.kind in ("spatial", "softmax"):
            return ONE_CHANNEL if self.image[-1] == 1 else CHANNELS
        if self.stride > 1:
            return STRIDED
        return {**FACTORED, "depth-wise, folded": folded_depthwise} if self.kind == "channel" else FACTORED


CASES = {
    "local 9x9 softmax, 256x256x1": Case("softmax", (1, 256, 256, 1), 9),
    "local 9x9, 256x256x1": Case("spatial", (1, 256, 256, 1), 9),
    "local 3x3, 256x256x1": Case("spatial", (1, 256, 256, 1), 3),
    "local 5x5, 64x64x8": Case("spatial", (1, 64, 64, 8), 5),
    "local 3x3, 56x56x64": Case("spatial", (1, 56, 56, 64), 3),
    "local 3x3 softmax, 56x56x64": Case("softmax", (1, 56, 56, 64), 3),
    "local 3x3, 56x56x64, 4 heads": Case("spatial", (1, 56, 56, 64), 3, heads=4),
    "depth-wise 3x3, 56x56x64": Case("channel", (1, 56, 56, 64), 3),
    "ddf2d 3x3, 14x14x64": Case("mul", (1, 14, 14, 64), 3),
    "ddf2d 3x3, 56x56x64": Case("mul", (1, 56, 56, 64), 3),
    "ddf2d 5x5, 56x56x64": Case("mul", (1, 56, 56, 64), 5),
    "ddf2d 3x3, 200x300x256": Case("mul", (1, 200, 300, 256), 3),
    "ddf2d 3x3, sum, 56x56x64": Case("add", (1, 56, 56, 64), 3),
    "ddf2d 3x3, stride 2, 56x56x64": Case("mul", (1, 56, 56, 64), 3, stride=2),
    "ddf2d 3x3, dilation 2, 56x56x64": Case("mul", (1, 56, 56, 64), 3, dilation=2),
    "ddf2d 3x3, dilation 6, 56x56x64": Case("mul", (1, 56, 56, 64), 3, dilation=6),
    "dynamic 3x3, 28x28x32 to 32": Case("per_sample", (1, 28, 28, 32), 3, maps=32),
    "dynamic 5x5, 64x64x3 to 8": Case("per_sample", (1, 64, 64, 3), 5, maps=8),
    "local 3x3, 28x28x8 to 8": Case("per_position", (1, 28, 28, 8), 3, maps=8),
}


def masked_slices(inputs, spatial, channel, kind, geometry):
    """Sums one slice per tap, and masks every product."""
    if channel is not None:
        return composite.slices(inputs, spatial, channel, kind, geometry)
    ones = tf.ones([tf.shape(inputs)[0], *geometry.kernel_size, inputs.shape[-1]])
    if kind == "softmax":
        spatial = tf.nn.softmax(spatial)
    return composite.slices(inputs, spatial, ones, "mul", geometry)


def slices_for_xla(inputs, spatial, channel, kind, geometry):
    """Sums one slice per tap, with as few masks as a forward pass needs. XLA fuses the ops into one loop."""
    if channel is None or spatial is None:
        return composite.slices(inputs, spatial, channel, kind, geometry)
    rows, columns = composite.inside_masks(inputs, geometry)
    padded, output = composite.pad(inputs, geometry), 0.0
    for tap, (u, v) in enumerate(np.ndindex(*geometry.kernel_size)):
        image = composite.shifted(padded, (u, v), geometry)
        factors = spatial[..., tap : tap + 1], channel[:, u : u + 1, v : v + 1]
        product = (factors[0] * factors[1] if kind == "mul" else factors[0] + factors[1]) * image
        mask = composite.combine_masks(rows[u], columns[v], image)
        output += product if mask is None else tf.where(mask, product, 0.0)
    return output


def filters_and_windows(inputs, spatial, kind, geometry):
    """Returns filters, `[batch, height, width, heads, taps]`, and windows, which have one more axis: channels."""
    windows = composite.extract_windows(inputs, geometry)
    positions = sizes(windows)[:3]
    windows = tf.reshape(windows, [*positions, geometry.taps, geometry.heads, inputs.shape[-1] // geometry.heads])
    spatial = composite.mask_outside(spatial, kind, inputs, geometry)
    filters = tf.reshape(spatial, [*positions, geometry.heads, geometry.taps])
    return filters, tf.einsum("nhwtgc->nhwgtc", windows)


def windows_sum(inputs, spatial, channel, kind, geometry):
    """Multiplies windows by filters and sums over the taps."""
    filters, windows = filters_and_windows(inputs, spatial, kind, geometry)
    return _join_heads(tf.reduce_sum(tf.expand_dims(filters, -1) * windows, axis=-2))


def windows_matmul(inputs, spatial, channel, kind, geometry):
    """Multiplies windows by filters as matrices."""
    filters, windows = filters_and_windows(inputs, spatial, kind, geometry)
    return _join_heads(tf.squeeze(tf.matmul(tf.expand_dims(filters, -2), windows), -2))


def windows_einsum(inputs, spatial, channel, kind, geometry):
    """Multiplies windows by filters with Einsum."""
    filters, windows = filters_and_windows(inputs, spatial, kind, geometry)
    return _join_heads(tf.einsum("nhwgt,nhwgtc->nhwgc", filters, windows))


def windows_full_filters(inputs, spatial, channel, kind, geometry):
    """Combines the factors to a filter per pixel and channel, multiplies windows by these filters, sums over taps."""
    windows = composite.extract_windows(inputs, geometry)
    positions, channels = sizes(windows)[:3], inputs.shape[-1]
    filters = tf.reshape(channel, [sizes(channel)[0], 1, 1, geometry.taps, channels])
    if spatial is not None:
        spatial = composite.mask_outside(spatial, "spatial", inputs, geometry)[..., tf.newaxis]
        filters = spatial * filters if kind == "mul" else spatial + filters
    return tf.reduce_sum(tf.reshape(windows, [*positions, geometry.taps, channels]) * filters, axis=-2)


def one_hot_convolution(inputs, spatial, channel, kind, geometry):
    """Extracts windows with a convolution with one-hot kernels. An infinite pixel makes whole windows NaN."""
    kernels = np.eye(geometry.taps, dtype="float32").reshape(*geometry.kernel_size, 1, geometry.taps)
    windows = tf.nn.conv2d(composite.pad(inputs, geometry), kernels, 1, "VALID")
    spatial = composite.mask_outside(spatial, kind, inputs, geometry)
    return tf.reduce_sum(spatial * windows, axis=-1, keepdims=True)


def folded_depthwise(inputs, spatial, channel, kind, geometry):
    """Applies one depth-wise convolution to the channels of all samples."""
    batch, height, width, channels = sizes(inputs)
    image = tf.reshape(tf.transpose(inputs, [1, 2, 0, 3]), [1, height, width, batch * channels])
    kernel = tf.reshape(tf.transpose(channel, [1, 2, 0, 3]), [*geometry.kernel_size, batch * channels, 1])
    output = tf.nn.depthwise_conv2d(composite.pad(image, geometry), kernel, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(output, [height, width, batch, channels]), [2, 0, 1, 3])


def slices_matmul(inputs, filters, geometry):
    """Sums one matrix product per tap, for filters per sample."""
    batch, _, _, _, maps = sizes(filters)
    _, height, width, channels = sizes(inputs)
    padded, output = composite.pad(inputs, geometry), 0.0
    for tap in np.ndindex(*geometry.kernel_size):
        image = tf.reshape(composite.shifted(padded, tap, geometry), [batch, height * width, channels])
        output += tf.matmul(image, filters[:, tap[0], tap[1]])
    return tf.reshape(output, [batch, height, width, maps])


def windows_filters_einsum(inputs, filters, geometry):
    """Multiplies windows by filters per sample or per position with Einsum."""
    windows = composite.extract_windows(inputs, geometry)
    *leading, _, _, _, maps = sizes(filters)
    bank = tf.reshape(filters, [*leading, geometry.taps * inputs.shape[-1], maps])
    return tf.einsum("nhwk,nkf->nhwf" if len(leading) == 1 else "nhwk,nhwkf->nhwf", windows, bank)


def windows_filters_sum(inputs, filters, geometry):
    """Multiplies windows by filters per position and sums over taps and channels."""
    windows = composite.extract_windows(inputs, geometry)
    *positions, _, _, _, maps = sizes(filters)
    bank = tf.reshape(filters, [*positions, geometry.taps * inputs.shape[-1], maps])
    return tf.reduce_sum(windows[..., tf.newaxis] * bank, axis=-2)


def _join_heads(output):
    """Reshapes `[batch, height, width, heads, channels]` to `[batch, height, width, heads * channels]`."""
    *positions, heads, channels = sizes(output)
    return tf.reshape(output, [*positions, heads * channels])


# Names of the forms that `keras_dynfilter.ops` uses for some kind of filter.
WINDOWS, SLICES, CANVAS, MATMUL = "windows, sum", "slices", "canvas", "windows, matmul"
ONE_CHANNEL = {
    WINDOWS: composite.windows,
    SLICES: composite.slices,
    "slices, masked": masked_slices,
    "one-hot convolution": one_hot_convolution,
}
CHANNELS = {
    SLICES: composite.slices,
    "slices, masked": masked_slices,
    WINDOWS: windows_sum,
    MATMUL: windows_matmul,
    "windows, einsum": windows_einsum,
}
FACTORED = {CANVAS: composite.canvas, "slices, masked": masked_slices, WINDOWS: windows_full_filters}
STRIDED = {SLICES: composite.slices, WINDOWS: windows_full_filters}
PER_SAMPLE = {
    MATMUL: dynamic_conv.matmul_per_sample,
    "slices, matmul": slices_matmul,
    "windows, einsum": windows_filters_einsum,
}
PER_POSITION = {
    MATMUL: dynamic_conv.matmul_per_position,
    WINDOWS: windows_filters_sum,
    "windows, einsum": windows_filters_einsum,
}
