# SPDX-License-Identifier: Apache-2.0
"""The family in TensorFlow ops: shifted slices, accumulated. Runs, differentiates and exports wherever TensorFlow does.

Slices, not `tf.image.extract_patches`: that is slower by two orders of magnitude and breaks exports with an unknown
batch size.
"""

import numpy as np
import tensorflow as tf


def filter2d(inputs, spatial, channel, weight, geometry):
    """`sum_t w(n,i,j,t,c) * inputs[...]`; see `keras_dynfilter.ops` for the shapes.

    Args:
        inputs: `[batch, height, width, channels]`.
        spatial: `[batch, out_height, out_width, heads * taps]`, or None.
        channel: `[batch, kernel_h, kernel_w, channels]`, or None.
        weight: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
        geometry: A `Geometry`.
    """
    dtype = inputs.dtype
    accumulate = tf.float64 if dtype == tf.float64 else tf.float32
    inputs = tf.cast(inputs, accumulate)
    size, out_size, padded = pad(inputs, geometry)
    if spatial is not None:
        spatial = _per_head(tf.cast(spatial, accumulate), geometry)
        if weight == "softmax":
            spatial = tf.nn.softmax(spatial, axis=-1)
    if channel is not None:
        channel = tf.cast(channel, accumulate)

    rows, columns = (_inside(axis, size[axis], out_size[axis], geometry) for axis in (0, 1))
    zero = tf.zeros((), accumulate)
    output = None
    for u in range(geometry.kernel_size[0]):
        for v in range(geometry.kernel_size[1]):
            image = shifted(padded, (u, v), geometry)
            tap = u * geometry.kernel_size[1] + v
            masks = [mask for mask in (rows[u], columns[v]) if mask is not None]
            inside = (masks[0] if len(masks) == 1 else masks[0] & masks[1]) if masks else None
            # [batch, out_height, out_width, channels] or what broadcasts to it
            spatial_tap = None if spatial is None else _over_channels(spatial[..., tap], image)
            channel_tap = None if channel is None else channel[:, None, None, u, v, :]
            if channel is None:
                product = spatial_tap * image
            elif spatial is None:
                product = channel_tap * image
            elif weight == "mul":
                if inside is not None:
                    # In the gradient by one factor, the other meets a gradient of zero there: NaN if it is infinite.
                    spatial_tap = tf.where(inside, spatial_tap, zero)
                product = (spatial_tap * channel_tap) * image
            else:
                product = (spatial_tap + channel_tap) * image
            if inside is not None:
                # A tap outside the image is skipped: an infinite filter there must not become NaN.
                product = tf.where(inside, product, zero)
            output = product if output is None else output + product
    return tf.cast(output, dtype)


def pad(inputs, geometry):
    """Returns `(height, width)` of the images, `(out_height, out_width)`, and the images padded with zeros."""
    size = sizes(inputs)[1:3]
    out_size = [geometry.output_size(size[axis], axis) for axis in (0, 1)]
    out_size = [n if isinstance(n, int) else tf.maximum(n, 0) for n in out_size]
    padded = tf.pad(inputs, [[0, 0], *geometry.pads, [0, 0]]) if geometry.padding == "same" else inputs
    return size, out_size, padded


def shifted(padded, tap, geometry):
    """The pixel of the padded image that lies under `tap`, for every output position."""
    begin = [tap[axis] * geometry.dilation_rate[axis] for axis in (0, 1)]
    # Ends are counted from the far side, which needs no size: the slices of an exported graph stay constant.
    end = [begin[axis] - geometry.extent[axis] + 1 or None for axis in (0, 1)]
    return padded[:, begin[0] : end[0] : geometry.strides[0], begin[1] : end[1] : geometry.strides[1], :]


def sizes(value):
    """Sizes of `value`: Python ints where known, scalar tensors elsewhere."""
    dynamic = tf.shape(value)
    return [dynamic[i] if size is None else size for i, size in enumerate(value.shape.as_list())]


def _per_head(spatial, geometry):
    """`[batch, out_height, out_width, heads * taps]` as `[..., heads, taps]`."""
    batch, height, width, _ = sizes(spatial)
    return tf.reshape(spatial, [batch, height, width, geometry.heads, geometry.taps])


def _over_channels(factor, image):
    """`[..., heads]` repeated for the channels of each head; a single head broadcasts as it is."""
    heads, channels = factor.shape[-1], image.shape[-1]
    if heads == 1:
        return factor
    if channels is None:
        return tf.repeat(factor, tf.shape(image)[-1] // heads, axis=-1)
    return tf.repeat(factor, channels // heads, axis=-1)


def _inside(axis, size, out_size, geometry):
    """By tap along `axis`: the outputs whose tap lies inside the image, `[out_height, 1, 1]` or `[1, out_width, 1]`.

    None stands for all of them.
    """
    before, after = geometry.pads[axis]
    masks = []
    for tap in range(geometry.kernel_size[axis]):
        offset = tap * geometry.dilation_rate[axis] - before
        if (not before and not after) or offset == 0:
            masks.append(None)
            continue
        xp = np if isinstance(size, int) else tf
        position = xp.arange(out_size) if xp is np else tf.range(out_size)
        position = position * geometry.strides[axis] + offset
        mask = (position >= 0) & (position < size)
        if xp is np and mask.all():
            masks.append(None)
        else:
            masks.append(mask[:, None, None] if axis == 0 else mask[None, :, None])
    return masks
