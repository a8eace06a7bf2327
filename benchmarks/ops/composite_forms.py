# SPDX-License-Identifier: Apache-2.0
"""Ways to write a dynamic filter in standard ops, for `benchmarks.export.portable_forms`; those in use come first."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops import dynamic_conv
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.geometry import Geometry


class Case(NamedTuple):
    """Weights of the family in `ops._composite`, or `"bank"` and `"local bank"`: filters that mix channels."""

    weight: str
    image: tuple  # [batch, height, width, channels]
    window: int
    heads: int = 1
    dilation: int = 1
    stride: int = 1
    maps: int = 0  # of a bank

    @property
    def geometry(self):
        return Geometry.make(self.window, self.stride, self.dilation, heads=self.heads)

    def sizes(self, shrink=1):
        """Batch, height and width of the images, and of what is filtered; `shrink` divides the images'."""
        batch, height, width, _ = self.image
        images = (batch, max(height // shrink, 1), max(width // shrink, 1))
        return {"inputs": images, "channel": images, "filters": images, "spatial": self._filtered(images)}

    def _filtered(self, images):
        return images[0], *(-(-size // self.stride) for size in images[1:])

    def specs(self):
        """The operands by name; batch, height and width are open."""
        taps, channels = self.window**2, self.image[-1]
        bank = (self.window, self.window, channels)
        shapes = {"inputs": (None, None, None, channels)}
        if self.weight in ("spatial", "softmax", "mul", "add"):
            shapes["spatial"] = (None, None, None, self.heads * taps)
        if self.weight in ("channel", "mul", "add"):
            shapes["channel"] = (None, *bank)
        if self.weight == "bank":
            shapes["filters"] = (None, *bank, self.maps)
        if self.weight == "local bank":
            shapes["filters"] = (None, None, None, *bank, self.maps)
        return {name: tf.TensorSpec(shape, name=name) for name, shape in shapes.items()}

    def compute(self, form, operands):
        """A form of this case, on operands by name."""
        if "filters" in operands:
            return form(operands["inputs"], operands["filters"], self.geometry)
        spatial, channel = operands.get("spatial"), operands.get("channel")
        return form(operands["inputs"], spatial, channel, self.weight, self.geometry)

    def forms(self):
        """The forms by name."""
        if self.weight == "bank":
            return BANK
        if self.weight == "local bank":
            return LOCAL_BANK
        if self.weight in ("spatial", "softmax"):
            return ONE_CHANNEL if self.image[-1] == 1 else CHANNELS
        if self.stride > 1:
            return STRIDED
        return {**FACTORED, "depth-wise, folded": folded} if self.weight == "channel" else FACTORED


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
    "dynamic 3x3, 28x28x32 to 32": Case("bank", (1, 28, 28, 32), 3, maps=32),
    "dynamic 5x5, 64x64x3 to 8": Case("bank", (1, 64, 64, 3), 5, maps=8),
    "local 3x3, 28x28x8 to 8": Case("local bank", (1, 28, 28, 8), 3, maps=8),
}


def masked(inputs, spatial, channel, weight, geometry):
    """Slices accumulated, with a mask for every product."""
    if channel is not None:
        return composite.gathered(inputs, spatial, channel, weight, geometry)
    ones = tf.ones([tf.shape(inputs)[0], *geometry.kernel_size, inputs.shape[-1]])
    if weight == "softmax":
        spatial = tf.nn.softmax(spatial)
    return composite.gathered(inputs, spatial, ones, "mul", geometry)


def sliced(inputs, spatial, channel, weight, geometry):
    """Slices accumulated with as few masks as a forward pass needs: what XLA fuses into one loop."""
    if channel is None or spatial is None:
        return composite.gathered(inputs, spatial, channel, weight, geometry)
    rows, columns = composite._inside(inputs, geometry)
    padded, output = composite.pad(inputs, geometry), 0.0
    for tap, (u, v) in enumerate(np.ndindex(*geometry.kernel_size)):
        image = composite.shifted(padded, (u, v), geometry)
        factors = spatial[..., tap : tap + 1], channel[:, u : u + 1, v : v + 1]
        product = (factors[0] * factors[1] if weight == "mul" else factors[0] + factors[1]) * image
        mask = composite._both(rows[u], columns[v], image)
        output += product if mask is None else tf.where(mask, product, 0.0)
    return output


def windows(inputs, spatial, weight, geometry):
    """Filters `[batch, height, width, heads, taps]` and windows `[batch, height, width, heads, taps, channels]`."""
    patches = composite.windows(inputs, geometry)
    sizes = composite.sizes(patches)[:3]
    patches = tf.reshape(patches, [*sizes, geometry.taps, geometry.heads, inputs.shape[-1] // geometry.heads])
    spatial = composite._skipping(spatial, weight, inputs, geometry)
    return tf.reshape(spatial, [*sizes, geometry.heads, geometry.taps]), tf.einsum("nhwtgc->nhwgtc", patches)


def _joined(output):
    """Heads and channels of `[batch, height, width, heads, channels]` as one axis."""
    sizes = composite.sizes(output)
    return tf.reshape(output, [*sizes[:3], sizes[3] * sizes[4]])


def product(inputs, spatial, channel, weight, geometry):
    spatial, patches = windows(inputs, spatial, weight, geometry)
    return _joined(tf.reduce_sum(tf.expand_dims(spatial, -1) * patches, axis=-2))


def matmul(inputs, spatial, channel, weight, geometry):
    spatial, patches = windows(inputs, spatial, weight, geometry)
    return _joined(tf.squeeze(tf.matmul(tf.expand_dims(spatial, -2), patches), -2))


def einsum(inputs, spatial, channel, weight, geometry):
    return _joined(tf.einsum("nhwgt,nhwgtc->nhwgc", *windows(inputs, spatial, weight, geometry)))


def factored(inputs, spatial, channel, weight, geometry):
    """Windows times the filters of every pixel and channel, which are made first."""
    patches = composite.windows(inputs, geometry)
    sizes, channels = composite.sizes(patches)[:3], inputs.shape[-1]
    bank = tf.reshape(channel, [composite.sizes(channel)[0], 1, 1, geometry.taps, channels])
    if spatial is not None:
        spatial = composite._skipping(spatial, "spatial", inputs, geometry)[..., tf.newaxis]
        bank = spatial * bank if weight == "mul" else spatial + bank
    return tf.reduce_sum(tf.reshape(patches, [*sizes, geometry.taps, channels]) * bank, axis=-2)


def one_hot(inputs, spatial, channel, weight, geometry):
    """Windows by a convolution whose kernels have a single one each: an infinite pixel spoils whole windows."""
    kernels = np.eye(geometry.taps, dtype="float32").reshape(*geometry.kernel_size, 1, geometry.taps)
    patches = tf.nn.conv2d(composite.pad(inputs, geometry), kernels, 1, "VALID")
    spatial = composite._skipping(spatial, weight, inputs, geometry)
    return tf.reduce_sum(spatial * patches, axis=-1, keepdims=True)


def folded(inputs, spatial, channel, weight, geometry):
    """A depth-wise convolution over the channels of all samples."""
    batch, height, width, channels = composite.sizes(inputs)
    image = tf.reshape(tf.transpose(inputs, [1, 2, 0, 3]), [1, height, width, batch * channels])
    kernel = tf.reshape(tf.transpose(channel, [1, 2, 0, 3]), [*geometry.kernel_size, batch * channels, 1])
    output = tf.nn.depthwise_conv2d(composite.pad(image, geometry), kernel, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(output, [height, width, batch, channels]), [2, 0, 1, 3])


def slice_products(inputs, filters, geometry):
    """A bank of each sample: one matrix product for every tap, added up."""
    batch, _, _, _, maps = composite.sizes(filters)
    _, height, width, channels = composite.sizes(inputs)
    padded, output = composite.pad(inputs, geometry), 0.0
    for tap in np.ndindex(*geometry.kernel_size):
        image = tf.reshape(composite.shifted(padded, tap, geometry), [batch, height * width, channels])
        output += tf.matmul(image, filters[:, tap[0], tap[1]])
    return tf.reshape(output, [batch, height, width, maps])


def bank_einsum(inputs, filters, geometry):
    """A bank of each sample or position, and the windows, as one Einsum."""
    patches = composite.windows(inputs, geometry)
    sizes = composite.sizes(filters)
    bank = tf.reshape(filters, [*sizes[:-4], geometry.taps * inputs.shape[-1], sizes[-1]])
    return tf.einsum("nhwk,nkf->nhwf" if len(sizes) == 5 else "nhwk,nhwkf->nhwf", patches, bank)


def bank_product(inputs, filters, geometry):
    """A bank of each position: windows times filters, summed."""
    patches = composite.windows(inputs, geometry)
    sizes = composite.sizes(filters)
    bank = tf.reshape(filters, [*sizes[:3], geometry.taps * inputs.shape[-1], sizes[-1]])
    return tf.reduce_sum(patches[..., tf.newaxis] * bank, axis=-2)


PATCHES, GATHERED, SCATTERED, MATMUL = "windows, sum", "slices", "canvas", "windows, matmul"
ONE_CHANNEL = {
    PATCHES: lambda x, s, c, weight, geometry: composite.patches(x, s, weight, geometry),
    GATHERED: composite.gathered,
    "slices, masked": masked,
    "one-hot convolution": one_hot,
}
CHANNELS = {
    GATHERED: composite.gathered,
    "slices, masked": masked,
    PATCHES: product,
    MATMUL: matmul,
    "windows, einsum": einsum,
}
FACTORED = {SCATTERED: composite.scattered, "slices, masked": masked, PATCHES: factored}
STRIDED = {GATHERED: composite.gathered, PATCHES: factored}
BANK = {MATMUL: dynamic_conv._matmul, "slices, matmul": slice_products, "windows, einsum": bank_einsum}
LOCAL_BANK = {MATMUL: dynamic_conv._per_position, PATCHES: bank_product, "windows, einsum": bank_einsum}
