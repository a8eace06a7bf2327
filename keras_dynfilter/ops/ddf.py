# SPDX-License-Identifier: Apache-2.0
"""Decoupled dynamic filters: a spatial and a channel factor, combined on the fly."""

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry

COMBINES = ("mul", "add")


def ddf2d(
    inputs,
    channel_filters,
    spatial_filters,
    strides=1,
    dilation_rate=1,
    padding="same",
    heads=1,
    combine="mul",
    data_format="channels_last",
):
    """Filters with decoupled dynamic filters: per sample and position, times (or plus) per sample and channel.

        w(n,i,j,u,v,c) = spatial_filters[n,i,j,head(c),u,v] * channel_filters[n,u,v,c]        for combine="mul"
        w(n,i,j,u,v,c) = spatial_filters[n,i,j,head(c),u,v] + channel_filters[n,u,v,c]        for combine="add"
        out[n,i,j,c] = sum_{u,v} w(n,i,j,u,v,c) * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    with `s` the strides, `d` the dilation rate, and `r = d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`,
    each of its axis. The taps are not mirrored (cross-correlation); those outside the image are skipped. The combined
    filters are never stored.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        channel_filters: `[batch, kernel_h, kernel_w, channels]`, of odd size.
        spatial_filters: `[batch, out_height, out_width, heads*kernel_h*kernel_w]`, head-major, then row-major taps.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output
            `ceil(size / strides)`, windows centred on input `i * strides`; or `"valid"`: no padding.
        heads: Number of spatial filters per position; divides the channels. `head(c) = c // (channels / heads)`.
        combine: `"mul"` or `"add"`.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs`, `spatial_filters` and the result have their
            channel axis second, `channel_filters` stay as they are.

    Returns:
        `[batch, out_height, out_width, channels]`, of the dtype of `inputs`; sums are accumulated in float32 at least.

    Raises:
        ValueError: An argument, rank or shape is not as described.
        TypeError: The dtypes are not floating-point, or differ.

    Example:

    >>> image = np.arange(5.0).reshape(1, 1, 5, 1)
    >>> difference = np.reshape([-1.0, 0.0, 1.0], [1, 1, 3, 1])
    >>> gain = np.repeat(np.reshape([1.0, 2.0, 3.0], [1, 1, 3, 1]), 3, axis=-1)
    >>> ddf2d(image, difference, gain, padding="valid").numpy().ravel()
    array([2., 4., 6.])

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3.
    """
    choice(combine, "combine", COMBINES)
    inputs, channel_filters, spatial_filters = checks.tensors(
        inputs=inputs, channel_filters=channel_filters, spatial_filters=spatial_filters
    )
    geometry = Geometry.make(
        filter2d.window(channel_filters, "channel_filters"), strides, dilation_rate, padding, heads
    )
    return filter2d.filter2d(inputs, spatial_filters, channel_filters, combine, geometry, data_format)
