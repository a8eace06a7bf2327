# SPDX-License-Identifier: Apache-2.0
"""The family in TensorFlow ops. Runs, differentiates and exports wherever TensorFlow does.

There are three forms, chosen by what they cost in onnxruntime and LiteRT (`python -m benchmarks.export.portable_forms`). None
uses `tf.image.extract_patches`, which is slower by two orders of magnitude and breaks exports with an unknown batch
size, and none a tensor of more than five axes or an index of new axes, which LiteRT lacks.
"""

import numpy as np
import tensorflow as tf

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import scope


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
    accumulate = checks.accumulation(dtype)
    inputs, spatial, channel = (
        None if value is None else tf.cast(value, accumulate) for value in (inputs, spatial, channel)
    )
    if inputs.shape[-1] == 1 and channel is None:
        output = patches(inputs, spatial, weight, geometry)
    elif channel is None or geometry.padding == "valid" or geometry.strides != (1, 1):
        output = gathered(inputs, spatial, channel, weight, geometry)
    else:
        output = scattered(inputs, spatial, channel, weight, geometry)
    return tf.cast(output, dtype)


def patches(inputs, spatial, weight, geometry):
    """One channel: the window around each position, times its filter, summed."""
    spatial = _skipping(spatial, weight, inputs, geometry)
    return tf.reduce_sum(spatial * windows(inputs, geometry), axis=-1, keepdims=True)


def gathered(inputs, spatial, channel, weight, geometry):
    """Shifted slices, times their factors, accumulated: from the output's side, any strides."""
    masked = channel is not None  # otherwise the spatial filters are, all at once
    if masked:
        rows, columns = _inside(inputs, geometry)
        channel = _taps(channel, geometry)
        if weight == "mul":
            # In the gradient by one factor, the other meets a gradient of zero there: NaN if it is infinite. All taps
            # at once: LiteRT's converter to 8 bits gives them the range of one of them if each is masked by itself.
            spatial = _skipping(spatial, "spatial", inputs, geometry)
        elif spatial is not None:
            spatial = _per_head(spatial, geometry)
    else:
        spatial = _skipping(spatial, weight, inputs, geometry)
    padded = pad(_per_head(inputs, geometry), geometry)
    zero = tf.zeros((), inputs.dtype)
    output = None
    for tap in range(geometry.taps):
        u, v = divmod(tap, geometry.kernel_size[1])
        image = shifted(padded, (u, v), geometry)
        mask = _both(rows[u], columns[v], image) if masked else None
        spatial_tap = None if spatial is None else spatial[..., tap : tap + 1]
        if channel is None:
            product = spatial_tap * image
        elif spatial is None:
            product = channel[tap] * image
        else:
            product = (spatial_tap * channel[tap] if weight == "mul" else spatial_tap + channel[tap]) * image
        if mask is not None:
            # A tap outside the image is skipped: an infinite filter there must not become NaN.
            product = tf.where(mask, product, zero)
        output = product if output is None else output + product
    return _all_channels(output, inputs, geometry)


def scattered(inputs, spatial, channel, weight, geometry):
    """Pixels times their factors, each added where its results are: from the input's side, at stride 1.

    A pixel has no taps outside the image, so nothing is masked, and no size is computed. But its products for positions
    beside the image are formed and dropped; in the gradients they would come back as zero times infinity. So the
    gradients are those of the other form.
    """
    factors = [factor for factor in (spatial, channel) if factor is not None]

    def split(factors):
        return factors if len(factors) == 2 else (None, *factors)

    @scope.custom_gradient
    def compute(inputs, *factors):
        def gradient(grad):
            with tf.GradientTape() as tape:
                tape.watch([inputs, *factors])
                output = gathered(inputs, *split(factors), weight, geometry)
            return tape.gradient(output, [inputs, *factors], output_gradients=grad)

        return _scattered(inputs, *split(factors), weight, geometry), gradient

    return compute(inputs, *factors)


def _scattered(inputs, spatial, channel, weight, geometry):
    images = _per_head(inputs, geometry)
    reach = [before for before, _ in geometry.pads]
    channel = _taps(channel, geometry)
    if spatial is not None:
        spatial = pad(_per_head(spatial, geometry), geometry)
    output = None
    for tap in range(geometry.taps):
        place = divmod(tap, geometry.kernel_size[1])
        offset = [place[axis] * geometry.dilation_rate[axis] - reach[axis] for axis in (0, 1)]
        ends = [(reach[axis] - offset[axis], reach[axis] + offset[axis]) for axis in (0, 1)]
        spatial_tap = None
        if spatial is not None:
            (top, bottom), (left, right) = ends
            spatial_tap = spatial[:, top : -bottom or None, left : -right or None][..., tap : tap + 1]
        if weight == "add":
            product = images * (spatial_tap + channel[tap])
        else:
            product = images * channel[tap]
            product = product if spatial is None else product * spatial_tap
        product = tf.pad(product, [[0, 0], *ends, *[[0, 0]] * (product.shape.rank - 3)])
        output = product if output is None else output + product
    output = output[:, reach[0] : -reach[0] or None, reach[1] : -reach[1] or None]
    return _all_channels(output, inputs, geometry)


def windows(inputs, geometry):
    """`[batch, out_height, out_width, taps * channels]`: the window around each position, taps first.

    Along the rows, then along the columns, whose parts are then in one piece.
    """
    output = pad(inputs, geometry)
    for axis in (1, 0):
        parts = [_along(output, axis, tap, geometry) for tap in range(geometry.kernel_size[axis])]
        output = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
    return output


def pad(images, geometry):
    """`[batch, height, width, ...]` with the zeros around it that the windows reach."""
    if geometry.padding == "valid":
        return images
    return tf.pad(images, [[0, 0], *geometry.pads, *[[0, 0]] * (images.shape.rank - 3)])


def shifted(padded, tap, geometry):
    """The pixel of the padded image that lies under `tap`, for every output position."""
    (top, bottom, down), (left, right, across) = (_slice(axis, tap[axis], geometry) for axis in (0, 1))
    return padded[:, top:bottom:down, left:right:across]


def _along(padded, axis, tap, geometry):
    begin, end, stride = _slice(axis, tap, geometry)
    return padded[:, begin:end:stride] if axis == 0 else padded[:, :, begin:end:stride]


def _slice(axis, tap, geometry):
    begin = tap * geometry.dilation_rate[axis]
    # Ends are counted from the far side, which needs no size: the slices of an exported graph stay constant.
    return begin, begin - geometry.extent[axis] + 1 or None, geometry.strides[axis]


def sizes(value):
    """Sizes of `value`: Python ints where known, scalar tensors elsewhere."""
    dynamic = tf.shape(value)
    return [dynamic[i] if size is None else size for i, size in enumerate(value.shape.as_list())]


def _skipping(spatial, weight, inputs, geometry):
    """Spatial filters by head, zero where a tap lies outside the image: an infinite one must not become NaN there.

    Those of a softmax are finite, or NaN all over the window.
    """
    spatial = _per_head(spatial, geometry)
    if weight == "softmax":
        # As a matrix: tf2onnx would otherwise let the taps lie apart, as the convolution before left them.
        weights = tf.nn.softmax(tf.reshape(spatial, [-1, geometry.taps]))
        return tf.reshape(weights, sizes(spatial))
    rows, columns = _inside(inputs, geometry)
    if all(mask is None for mask in (*rows, *columns)):
        return spatial
    size = _output_size(inputs, geometry)
    (kernel_h, kernel_w), heads = geometry.kernel_size, [1] * (geometry.heads > 1)
    rows, columns = (
        tf.stack([tf.ones(size[axis], tf.bool) if mask is None else mask for mask in masks], axis=-1)
        for axis, masks in enumerate((rows, columns))
    )
    inside = tf.reshape(rows, [size[0], 1, kernel_h, 1]) & tf.reshape(columns, [1, size[1], 1, kernel_w])
    return tf.where(tf.reshape(inside, [*size, *heads, geometry.taps]), spatial, tf.zeros((), spatial.dtype))


def _inside(inputs, geometry):
    """By axis, by tap along it: whether the tap lies inside the image, `[out_height]` or `[out_width]`.

    None stands for all of them. What is known while the graph is made is an array, which becomes a constant.
    """
    found = []
    for axis, (size, out_size) in enumerate(zip(sizes(inputs)[1:3], _output_size(inputs, geometry))):
        before, after = geometry.pads[axis]
        masks = [None] * geometry.kernel_size[axis]
        for tap in range(len(masks)):
            offset = tap * geometry.dilation_rate[axis] - before
            if (not before and not after) or offset == 0:
                continue
            known = isinstance(size, int)
            position = np.arange(out_size) if known else tf.range(out_size)
            position = position * geometry.strides[axis] + offset
            mask = (position >= 0) & (position < size)
            masks[tap] = None if known and mask.all() else mask
        found.append(masks)
    return found


def _both(row, column, image):
    """The mask of a tap, which broadcasts with `image`; None if it is inside everywhere."""
    ones = [1] * (image.shape.rank - 3)
    row = None if row is None else tf.reshape(row, [-1, 1, *ones])
    column = None if column is None else tf.reshape(column, [1, -1, *ones])
    return column if row is None else row if column is None else row & column


def _output_size(inputs, geometry):
    return [geometry.output_size(size, axis) for axis, size in enumerate(sizes(inputs)[1:3])]


def _per_head(values, geometry):
    """`[..., heads * n]` as `[..., heads, n]`; a single head broadcasts as it is."""
    if geometry.heads == 1:
        return values
    *positions, last = sizes(values)
    return tf.reshape(values, [*positions, geometry.heads, last // geometry.heads])


def _all_channels(output, inputs, geometry):
    """Undoes `_per_head`."""
    return output if geometry.heads == 1 else tf.reshape(output, [*sizes(output)[:3], sizes(inputs)[3]])


def _taps(channel, geometry):
    """Channel filters by tap: `[batch, 1, 1, channels]`, or `[batch, 1, 1, heads, channels / heads]`."""
    channel = _per_head(channel, geometry)
    rows, columns = (range(size) for size in geometry.kernel_size)
    return [channel[:, row : row + 1, column : column + 1] for row in rows for column in columns]
