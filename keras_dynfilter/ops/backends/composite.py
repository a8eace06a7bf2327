# SPDX-License-Identifier: Apache-2.0
"""Computes the filter ops with standard TensorFlow ops, which run and export without the compiled library.

There are three forms: `windows`, `slices` and `canvas`. `filter2d` picks the form that is fastest in onnxruntime and
LiteRT; `python -m benchmarks.export.portable_forms` measures the forms. No form uses `tf.image.extract_patches`, which
is slower by two orders of magnitude and breaks exports with an unknown batch size. No form uses tensors of more than
five axes, or indexing that adds axes, because LiteRT does not support them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import scope
from keras_dynfilter.ops.backends.softmax import softmax
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import sizes

Mask: TypeAlias = tf.Tensor | np.ndarray | None  # boolean; None: true everywhere


def filter2d(
    inputs: tf.Tensor, spatial: tf.Tensor | None, channel: tf.Tensor | None, kind: str, geometry: Geometry
) -> tf.Tensor:
    """Applies filters that consist of a spatial factor, a channel factor, or both, with TensorFlow ops.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        spatial: Spatial filters, `[batch, out_height, out_width, heads * taps]`, or None.
        channel: Channel filters, `[batch, kernel_h, kernel_w, channels]`, or None.
        kind: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`; see the module `ops.filter2d`.
        geometry: The window and the number of heads.

    Returns:
        `[batch, out_height, out_width, channels]`, with the dtype of `inputs`.
    """
    dtype = inputs.dtype
    accumulate = checks.accumulation(dtype)
    inputs, spatial, channel = (
        None if value is None else tf.cast(value, accumulate) for value in (inputs, spatial, channel)
    )
    if inputs.shape[-1] == 1 and channel is None:
        output = windows(inputs, spatial, channel, kind, geometry)
    elif channel is None or geometry.padding == "valid" or geometry.strides != (1, 1):
        output = slices(inputs, spatial, channel, kind, geometry)
    else:
        output = canvas(inputs, spatial, channel, kind, geometry)
    return tf.cast(output, dtype)


def windows(
    inputs: tf.Tensor, spatial: tf.Tensor | None, channel: tf.Tensor | None, kind: str, geometry: Geometry
) -> tf.Tensor:
    """Multiplies the window around each position by its filter and sums, for one channel and `channel=None`."""
    spatial = mask_outside(spatial, kind, inputs, geometry)
    return tf.reduce_sum(spatial * extract_windows(inputs, geometry), axis=-1, keepdims=True)


def slices(
    inputs: tf.Tensor, spatial: tf.Tensor | None, channel: tf.Tensor | None, kind: str, geometry: Geometry
) -> tf.Tensor:
    """Multiplies one shifted slice of the images per tap by its factors and sums, for any strides and padding."""
    mask_products = channel is not None  # Otherwise one mask for all taps is applied to the spatial filters.
    if mask_products:
        rows, columns = inside_masks(inputs, geometry)
        channel = _per_tap(channel, geometry)
        if kind == "mul":
            # At masked taps, the gradient with respect to one factor is the other factor times zero, which is NaN if
            # the other factor is infinite. Therefore the spatial factor is masked, too. One mask covers all taps:
            # with a mask per tap, LiteRT's converter to 8 bits would give all taps the range of one tap.
            spatial = mask_outside(spatial, "spatial", inputs, geometry)
        elif spatial is not None:
            spatial = _split_heads(spatial, geometry)
    else:
        spatial = mask_outside(spatial, kind, inputs, geometry)
    padded = pad(_split_heads(inputs, geometry), geometry)
    zero = tf.zeros((), inputs.dtype)
    output = None
    for tap in range(geometry.taps):
        u, v = divmod(tap, geometry.kernel_size[1])
        image = shifted(padded, (u, v), geometry)
        mask = combine_masks(rows[u], columns[v], image) if mask_products else None
        spatial_tap = None if spatial is None else spatial[..., tap : tap + 1]
        if channel is None:
            product = spatial_tap * image
        elif spatial is None:
            product = channel[tap] * image
        else:
            product = (spatial_tap * channel[tap] if kind == "mul" else spatial_tap + channel[tap]) * image
        if mask is not None:
            # Taps outside the image are skipped: an infinite filter value there must not become NaN.
            product = tf.where(mask, product, zero)
        output = product if output is None else output + product
    return _join_heads(output, inputs, geometry)


def canvas(
    inputs: tf.Tensor, spatial: tf.Tensor | None, channel: tf.Tensor | None, kind: str, geometry: Geometry
) -> tf.Tensor:
    """Multiplies every pixel by its factors and adds each product to its output position, for stride 1 and "same".

    Only pixels inside the image are multiplied, so this form needs no masks and no sizes. It also computes products for
    positions outside the output and drops them. In gradients of this form, the dropped products would appear as zero
    times infinity, which is NaN. Therefore `slices` computes the gradients.
    """
    factors = [factor for factor in (spatial, channel) if factor is not None]

    def split(factors: Sequence[tf.Tensor]) -> tuple[tf.Tensor | None, tf.Tensor]:
        return (None, factors[0]) if spatial is None else (factors[0], factors[1])

    @scope.custom_gradient
    def compute(inputs, *factors):
        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch([inputs, *factors])
                output = slices(inputs, *split(factors), kind, geometry)
            return tape.gradient(output, [inputs, *factors], output_gradients=upstream)

        return _canvas(inputs, *split(factors), kind, geometry), gradient

    return compute(inputs, *factors)


def _canvas(inputs, spatial, channel, kind, geometry):
    images = _split_heads(inputs, geometry)
    pads = [before for before, _ in geometry.pads]  # Windows are odd: padding before and after is equal.
    channel = _per_tap(channel, geometry)
    if spatial is not None:
        spatial = pad(_split_heads(spatial, geometry), geometry)
    output: Any = None
    for tap in range(geometry.taps):
        tap_position = divmod(tap, geometry.kernel_size[1])
        offsets = [tap_position[axis] * geometry.dilation_rate[axis] - pads[axis] for axis in (0, 1)]
        margins = [(pads[axis] - offsets[axis], pads[axis] + offsets[axis]) for axis in (0, 1)]
        spatial_tap = None
        if spatial is not None:
            (top, bottom), (left, right) = margins
            spatial_tap = spatial[:, top : -bottom or None, left : -right or None][..., tap : tap + 1]
        if kind == "add":
            product = images * (spatial_tap + channel[tap])
        else:
            product = images * channel[tap]
            product = product if spatial is None else product * spatial_tap
        product = tf.pad(product, [[0, 0], *margins, *[[0, 0]] * (product.shape.rank - 3)])
        output = product if output is None else output + product
    output = output[:, pads[0] : -pads[0] or None, pads[1] : -pads[1] or None]
    return _join_heads(output, inputs, geometry)


def extract_windows(inputs: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Extracts the window around each position: `[batch, out_height, out_width, taps * channels]`, tap by tap.

    The pixels of a window row are concatenated first, then the rows, which are contiguous by then.
    """
    output = pad(inputs, geometry)
    for axis in (1, 0):
        parts = [_slice_along(output, axis, tap, geometry) for tap in range(geometry.kernel_size[axis])]
        output = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
    return output


def pad(images: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Pads `[batch, height, width, ...]` with the zeros of the geometry."""
    if geometry.padding == "valid":
        return images
    return tf.pad(images, [[0, 0], *geometry.pads, *[[0, 0]] * (images.shape.rank - 3)])


def shifted(padded: tf.Tensor, tap: tuple[int, int], geometry: Geometry) -> tf.Tensor:
    """Slices the padded images so that every output position holds the pixel under `tap`."""
    (top, bottom, row_stride), (left, right, column_stride) = (_bounds(axis, tap[axis], geometry) for axis in (0, 1))
    return padded[:, top:bottom:row_stride, left:right:column_stride]


def _slice_along(padded, axis, tap, geometry):
    begin, end, stride = _bounds(axis, tap, geometry)
    return padded[:, begin:end:stride] if axis == 0 else padded[:, :, begin:end:stride]


def _bounds(axis, tap, geometry):
    begin = tap * geometry.dilation_rate[axis]
    # The end is negative, counted from the last pixel, and needs no size: exported graphs have constant slices.
    return begin, begin - geometry.extent[axis] + 1 or None, geometry.strides[axis]


def mask_outside(spatial: tf.Tensor, kind: str, inputs: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Splits spatial filters by head and sets taps outside the image to zero, so that infinite values become no NaN.

    Softmax filters are normalised first. They are finite, or NaN in the whole window, so that only their gradient needs
    the mask: outside the image, it would be an infinite upstream gradient times zero.
    """
    spatial = _split_heads(spatial, geometry)
    if kind == "softmax":
        # The softmax of a matrix: otherwise tf2onnx keeps the channels-first layout of the preceding convolution, in
        # which the taps of a filter are far apart in memory.
        filters = softmax(tf.reshape(spatial, [-1, geometry.taps]))
        spatial = tf.reshape(filters, sizes(spatial))
        if scope.is_inference_only():
            return spatial
    rows, columns = inside_masks(inputs, geometry)
    if all(mask is None for mask in (*rows, *columns)):
        return spatial
    out_size = _output_size(inputs, geometry)
    (kernel_h, kernel_w), heads = geometry.kernel_size, [1] * (geometry.heads > 1)
    rows, columns = (
        tf.stack([tf.ones(out_size[axis], tf.bool) if mask is None else mask for mask in masks], axis=-1)
        for axis, masks in enumerate((rows, columns))
    )
    inside = tf.reshape(rows, [out_size[0], 1, kernel_h, 1]) & tf.reshape(columns, [1, out_size[1], 1, kernel_w])
    return tf.where(tf.reshape(inside, [*out_size, *heads, geometry.taps]), spatial, tf.zeros((), spatial.dtype))


def inside_masks(inputs: tf.Tensor, geometry: Geometry) -> tuple[list[Mask], list[Mask]]:
    """Computes, for every row and column of the window, a mask of the output positions where it is inside the image.

    Returns:
        A list of masks `[out_height]`, one per row of the window, and a list of masks `[out_width]`, one per column.
        None stands for a mask that is true everywhere. A mask that is known while the graph is traced is an array,
        which becomes a constant.
    """
    masks_by_axis: list[list[Mask]] = []
    for axis, (size, out_size) in enumerate(zip(sizes(inputs)[1:3], _output_size(inputs, geometry))):
        before, after = geometry.pads[axis]
        masks: list[Mask] = [None] * geometry.kernel_size[axis]
        for tap in range(len(masks)):
            offset = tap * geometry.dilation_rate[axis] - before
            if (not before and not after) or offset == 0:
                continue
            is_static = isinstance(size, int)
            position = np.arange(out_size) if is_static else tf.range(out_size)
            position = position * geometry.strides[axis] + offset
            mask = (position >= 0) & (position < size)
            masks[tap] = None if is_static and mask.all() else mask
        masks_by_axis.append(masks)
    return masks_by_axis[0], masks_by_axis[1]


def combine_masks(row: Mask, column: Mask, image: tf.Tensor) -> tf.Tensor | None:
    """Combines the masks of a row and a column of the window. The result broadcasts with `image`, or is None."""
    ones = [1] * (image.shape.rank - 3)
    row = None if row is None else tf.reshape(row, [-1, 1, *ones])
    column = None if column is None else tf.reshape(column, [1, -1, *ones])
    return column if row is None else row if column is None else row & column


def _output_size(inputs, geometry):
    return [geometry.output_size(size, axis) for axis, size in enumerate(sizes(inputs)[1:3])]


def _split_heads(values, geometry):
    """Reshapes `[..., heads * n]` to `[..., heads, n]`. Does nothing for a single head, which broadcasts."""
    if geometry.heads == 1:
        return values
    *positions, last = sizes(values)
    return tf.reshape(values, [*positions, geometry.heads, last // geometry.heads])


def _join_heads(output, inputs, geometry):
    """Reshapes `[batch, height, width, heads, n]` to `[batch, height, width, channels]`."""
    return output if geometry.heads == 1 else tf.reshape(output, [*sizes(output)[:3], sizes(inputs)[3]])


def _per_tap(channel, geometry):
    """Splits channel filters by tap: `[batch, 1, 1, channels]`, or `[batch, 1, 1, heads, channels / heads]`."""
    channel = _split_heads(channel, geometry)
    rows, columns = (range(size) for size in geometry.kernel_size)
    return [channel[:, row : row + 1, column : column + 1] for row in rows for column in columns]
