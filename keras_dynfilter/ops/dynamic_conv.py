# SPDX-License-Identifier: Apache-2.0
"""Dynamic convolution: generated filters that mix channels, per sample or per position."""

import tensorflow as tf

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import DATA_FORMATS, sizes, static_sizes, to_channels_first, to_channels_last
from keras_dynfilter.ops.local_filter import local_filter2d


def dynamic_conv2d(inputs, filters, strides=1, dilation_rate=1, padding="same", data_format="channels_last"):
    """Convolves every sample with a filter bank of its own.

        out[n,i,j,f] = sum_{u,v,c} filters[n,u,v,c,f] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    with `s` the strides, `d` the dilation rate, and `r = d*(kernel_size-1)/2`, rounded down, for `padding="same"`, 0
    for `"valid"`, each of its axis. The taps are not mirrored (cross-correlation). The sums over taps and channels are
    one matrix product per sample; a single input or output channel runs on the kernel of `dynamic_depthwise_conv2d`.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, kernel_h, kernel_w, channels, output_maps]`, in the order of Keras kernels. Even
            sizes are allowed; `"same"` then pads one more at the end, as Keras does at stride 1.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        padding: `"same"`: zeros on both sides, output `ceil(size / strides)`, windows centred on input
            `i * strides`; or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second,
            `filters` stay as they are.

    Returns:
        `[batch, out_height, out_width, output_maps]`, of the dtype of `inputs`.

    Raises:
        ValueError: An argument, rank or shape is not as described.
        TypeError: The dtypes are not floating-point, or differ.

    Example:

    >>> images = np.ones((4, 16, 16, 3))
    >>> filters = np.ones((4, 5, 5, 3, 2))
    >>> dynamic_conv2d(images, filters, strides=2).shape
    TensorShape([4, 8, 8, 2])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1.
    """
    inputs, filters = _prepare(inputs, filters, 5, "[batch, kernel_h, kernel_w, channels, output_maps]", data_format)
    geometry = Geometry.make(_window(filters, 1), strides, dilation_rate, padding, even=True)
    batch, _, _, channels = static_sizes(inputs, 4)
    _, kernel_h, kernel_w, _, maps = static_sizes(filters, 5)
    dims = dict(batch=batch, kernel_h=kernel_h, kernel_w=kernel_w, channels=channels, output_maps=maps)
    checks.check_shape("filters", filters, **dims)
    odd = kernel_h % 2 == 1 and kernel_w % 2 == 1
    if odd and 1 in (channels, maps) and None not in (channels, maps):
        output = _depthwise(inputs, filters, geometry)
    else:
        output = matmul_per_sample(inputs, filters, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


def local_conv2d(inputs, filters, strides=1, dilation_rate=1, padding="same", data_format="channels_last"):
    """Filters every position of every sample with a filter bank of its own: the general theta of the paper.

        out[n,i,j,f] = sum_{u,v,c} filters[n,i,j,u,v,c,f] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    with `s` the strides, `d` the dilation rate, and `r = d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`,
    each of its axis. The taps are not mirrored (cross-correlation).

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, out_height, out_width, kernel_h, kernel_w, channels, output_maps]`, of odd size, in
            this order for both data formats.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output
            `ceil(size / strides)`, windows centred on input `i * strides`; or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second.

    Returns:
        `[batch, out_height, out_width, output_maps]`, of the dtype of `inputs`.

    Raises:
        ValueError: An argument, rank or shape is not as described.
        TypeError: The dtypes are not floating-point, or differ.

    Example:

    >>> image = np.arange(3.0).reshape(1, 1, 3, 1)
    >>> once_and_twice = np.tile([1.0, 2.0], [1, 1, 3, 1, 1, 1, 1])
    >>> local_conv2d(image, once_and_twice).numpy()[0, 0]
    array([[0., 0.],
           [1., 2.],
           [2., 4.]])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.2.
    """
    meaning = "[batch, out_height, out_width, kernel_h, kernel_w, channels, output_maps]"
    inputs, filters = _prepare(inputs, filters, 7, meaning, data_format)
    geometry = Geometry.make(_window(filters, 3), strides, dilation_rate, padding)
    batch, height, width, channels = static_sizes(inputs, 4)
    out_height, out_width = geometry.output_shape((batch, height, width, channels))
    _, _, _, kernel_h, kernel_w, _, maps = static_sizes(filters, 7)
    dims = dict(batch=batch, out_height=out_height, out_width=out_width, kernel_h=kernel_h, kernel_w=kernel_w)
    checks.check_shape("filters", filters, **dims, channels=channels, output_maps=maps)
    if channels == 1 and maps == 1:
        batch, out_height, out_width = tf.unstack(tf.shape(filters)[:3])
        filters = tf.reshape(filters, [batch, out_height, out_width, geometry.taps])
        output = local_filter2d(inputs, filters, geometry.kernel_size, strides, dilation_rate, padding)
    else:
        output = matmul_per_position(inputs, filters, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


def _prepare(inputs, filters, rank, meaning, data_format):
    choice(data_format, "data_format", DATA_FORMATS)
    inputs, filters = checks.tensors(inputs=inputs, filters=filters)
    inputs = checks.check_rank("inputs", inputs, data_format)
    filters = checks.check_rank("filters", filters, meaning, rank)
    return (to_channels_last(inputs) if data_format == "channels_first" else inputs), filters


def _window(filters, axis):
    size = tuple(filters.shape[axis : axis + 2])
    if None in size:
        raise ValueError(f"Expected `filters` to have a known window size. Received: filters.shape={filters.shape}")
    return size


def _depthwise(inputs, filters, geometry):
    """One input or one output channel: every pair of them is a channel of the depth-wise family."""
    dtype, channels, maps = inputs.dtype, filters.shape[3], filters.shape[4]
    if channels * maps > 1:  # sums over either, forward or backward, go on in the accumulation type: one rounding
        inputs, filters = (tf.cast(value, checks.accumulation(dtype)) for value in (inputs, filters))
    wide = tf.repeat(inputs, maps, axis=-1) if maps > 1 else inputs
    bank = tf.reshape(filters, [tf.shape(filters)[0], *geometry.kernel_size, channels * maps])
    output = filter2d.filter2d(wide, None, bank, "channel", geometry, "channels_last", (None, "filters"))
    if channels > 1:
        output = tf.reduce_sum(output, axis=-1, keepdims=True)
    return tf.cast(output, dtype)


def matmul_per_sample(inputs, filters, geometry):
    """Every sample is one matrix product: `[positions, taps * channels] x [taps * channels, output_maps]`."""
    dtype, accumulate = inputs.dtype, checks.accumulation(inputs.dtype)
    patches = composite.extract_windows(tf.cast(inputs, accumulate), geometry)
    batch, out_height, out_width, depth = sizes(patches)
    maps = sizes(filters)[4]
    patches = tf.reshape(patches, [batch, out_height * out_width, depth])
    bank = tf.reshape(tf.cast(filters, accumulate), [batch, depth, maps])
    output = tf.reshape(tf.matmul(patches, bank), [batch, out_height, out_width, maps])
    return tf.cast(output, dtype)


def matmul_per_position(inputs, filters, geometry):
    """Every position is one product of a vector, its window, and a matrix."""
    dtype, accumulate = inputs.dtype, checks.accumulation(inputs.dtype)
    patches = composite.extract_windows(tf.cast(inputs, accumulate), geometry)
    *positions, depth = sizes(patches)
    maps = sizes(filters)[6]
    bank = tf.reshape(tf.cast(filters, accumulate), [*positions, depth, maps])
    output = tf.matmul(tf.reshape(patches, [*positions, 1, depth]), bank)
    return tf.cast(tf.reshape(output, [*positions, maps]), dtype)
