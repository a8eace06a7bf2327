# SPDX-License-Identifier: Apache-2.0
"""Dynamic convolution: filters that mix channels, one filter bank per sample or per position."""

from collections.abc import Sequence

import tensorflow as tf

from keras_dynfilter.ops import checks, filter2d, run_time_checks
from keras_dynfilter.ops.backends import composite
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import DATA_FORMATS, sizes, static_sizes, to_channels_first, to_channels_last
from keras_dynfilter.ops.local_filter import local_filter2d
from keras_dynfilter.ops.op_layer import accepts_keras_tensors


@accepts_keras_tensors
def dynamic_conv2d(
    inputs: tf.Tensor,
    filters: tf.Tensor,
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "same",
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Convolves every sample with its own filter bank.

        out[n,i,j,f] = sum_{u,v,c} filters[n,u,v,c,f] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    Here `s` are the strides, `d` is the dilation rate, and `r` is the number of zeros that the padding adds before the
    image: `d*(kernel_size-1)/2`, rounded down, for `padding="same"`, 0 for `"valid"`. All three may differ between the
    axes. Filters are not mirrored (cross-correlation). One matrix product per sample computes the sums over taps and
    channels. For odd windows and one input or output channel, `dynamic_depthwise_conv2d` computes them.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filter banks, `[batch, kernel_h, kernel_w, channels, output_maps]`, in the order of Keras kernels.
            Even sizes are allowed. If `dilation_rate * (kernel_size - 1)` is odd, `"same"` pads one more zero after the
            image than before it, as Keras does for strides of 1.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair: the distance between neighbouring taps in pixels.
        padding: `"same"`: zeros on both sides, output size `ceil(size / strides)`, odd windows centred on input
            `i * strides`. Or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second;
            `filters` keep their order.

    Returns:
        `[batch, out_height, out_width, output_maps]`, with the dtype of `inputs`.

    Raises:
        ValueError: An argument, a rank or a shape is not as described.
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
        RuntimeError: The native implementation is requested and not available, for odd windows and one input or output
            channel.

    Example:

    >>> images = np.ones((4, 16, 16, 3))
    >>> filters = np.ones((4, 5, 5, 3, 2))
    >>> dynamic_conv2d(images, filters, strides=2).shape
    TensorShape([4, 8, 8, 2])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1.
    """
    inputs, filters = _prepare(inputs, filters, 5, "[batch, kernel_h, kernel_w, channels, output_maps]", data_format)
    kernel_h, kernel_w = _window(filters, 1)
    geometry = Geometry.make((kernel_h, kernel_w), strides, dilation_rate, padding, even=True)
    batch, _, _, channels = static_sizes(inputs, 4)
    output_maps = static_sizes(filters, 5)[-1]
    expected = dict(batch=batch, kernel_h=kernel_h, kernel_w=kernel_w, channels=channels, output_maps=output_maps)
    checks.check_shape("filters", filters, **expected)
    is_odd = kernel_h % 2 == 1 and kernel_w % 2 == 1
    if is_odd and 1 in (channels, output_maps) and None not in (channels, output_maps):
        output = _depthwise(inputs, filters, geometry)
    else:
        if run_time_checks.needed(inputs, filters):
            batch, _, _, channels = sizes(inputs)
            expected.update(batch=batch, channels=channels, output_maps=sizes(filters)[-1])
            filters = run_time_checks.check_shape("filters", filters, **expected)
        output = matmul_per_sample(inputs, filters, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


@accepts_keras_tensors
def local_conv2d(
    inputs: tf.Tensor,
    filters: tf.Tensor,
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "same",
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Filters every position of every sample with its own filter bank, the most general filters of the paper.

        out[n,i,j,f] = sum_{u,v,c} filters[n,i,j,u,v,c,f] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    Here `s` are the strides, `d` is the dilation rate, and `r` is the number of zeros that the padding adds before the
    image: `d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`. All three may differ between the axes. Filters
    are not mirrored (cross-correlation).

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filter banks, `[batch, out_height, out_width, kernel_h, kernel_w, channels, output_maps]`, of odd size,
            in this order for both data formats.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair: the distance between neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output size
            `ceil(size / strides)`, windows centred on input `i * strides`. Or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second.

    Returns:
        `[batch, out_height, out_width, output_maps]`, with the dtype of `inputs`.

    Raises:
        ValueError: An argument, a rank or a shape is not as described.
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
        RuntimeError: The native implementation is requested and not available, for one input and one output channel.

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
    kernel_h, kernel_w = _window(filters, 3)
    geometry = Geometry.make((kernel_h, kernel_w), strides, dilation_rate, padding)
    batch, height, width, channels = static_sizes(inputs, 4)
    out_height, out_width = geometry.output_shape((batch, height, width, channels))
    output_maps = static_sizes(filters, 7)[-1]
    expected = dict(batch=batch, out_height=out_height, out_width=out_width, kernel_h=kernel_h, kernel_w=kernel_w)
    expected.update(channels=channels, output_maps=output_maps)
    checks.check_shape("filters", filters, **expected)
    if channels == 1 and output_maps == 1:
        batch, out_height, out_width = tf.unstack(tf.shape(filters)[:3])
        filters = tf.reshape(filters, [batch, out_height, out_width, geometry.taps])
        output = local_filter2d(inputs, filters, geometry.kernel_size, strides, dilation_rate, padding)
    else:
        if run_time_checks.needed(inputs, filters):
            batch, height, width, channels = sizes(inputs)
            out_height, out_width = (tf.maximum(size, 0) for size in geometry.output_shape((batch, height, width)))
            expected.update(batch=batch, out_height=out_height, out_width=out_width, channels=channels)
            expected.update(output_maps=sizes(filters)[-1])
            filters = run_time_checks.check_shape("filters", filters, **expected)
        output = matmul_per_position(inputs, filters, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


def _prepare(inputs, filters, rank, meaning, data_format):
    """Converts the arguments to tensors of the expected rank, and the images to channels-last order."""
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
    """Convolves with one input or one output channel, with one depth-wise channel for each pair of these channels."""
    dtype, channels, output_maps = inputs.dtype, filters.shape[3], filters.shape[4]
    if channels * output_maps > 1:
        # The sums over channels or output maps, forward and backward, stay in the wide dtype: results are rounded once.
        inputs, filters = (tf.cast(value, checks.accumulation(dtype)) for value in (inputs, filters))
    inputs = tf.repeat(inputs, output_maps, axis=-1) if output_maps > 1 else inputs
    filters = tf.reshape(filters, [tf.shape(filters)[0], *geometry.kernel_size, channels * output_maps])
    output = filter2d.filter2d(inputs, None, filters, "channel", geometry, "channels_last", ("", "filters"))
    if channels > 1:
        output = tf.reduce_sum(output, axis=-1, keepdims=True)
    return tf.cast(output, dtype)


def matmul_per_sample(inputs: tf.Tensor, filters: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Computes `dynamic_conv2d` as one matrix product per sample.

    The factors have the shapes `[positions, taps * channels]` and `[taps * channels, output_maps]`.
    """
    dtype, wide = inputs.dtype, checks.accumulation(inputs.dtype)
    windows = composite.extract_windows(tf.cast(inputs, wide), geometry)
    batch, out_height, out_width, depth = sizes(windows)
    output_maps = sizes(filters)[4]
    windows = tf.reshape(windows, [batch, out_height * out_width, depth])
    filters = tf.reshape(tf.cast(filters, wide), [batch, depth, output_maps])
    output = tf.reshape(tf.matmul(windows, filters), [batch, out_height, out_width, output_maps])
    return tf.cast(output, dtype)


def matmul_per_position(inputs: tf.Tensor, filters: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Computes `local_conv2d` as one product of a vector (the window) and a matrix (the filter bank) per position."""
    dtype, wide = inputs.dtype, checks.accumulation(inputs.dtype)
    windows = composite.extract_windows(tf.cast(inputs, wide), geometry)
    *positions, depth = sizes(windows)
    output_maps = sizes(filters)[6]
    filters = tf.reshape(tf.cast(filters, wide), [*positions, depth, output_maps])
    output = tf.matmul(tf.reshape(windows, [*positions, 1, depth]), filters)
    return tf.cast(tf.reshape(output, [*positions, output_maps]), dtype)
