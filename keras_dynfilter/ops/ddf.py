# SPDX-License-Identifier: Apache-2.0
"""Decoupled dynamic filtering: every filter is the product or the sum of a spatial and a channel factor."""

from collections.abc import Sequence

import tensorflow as tf

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.op_layer import accepts_keras_tensors

COMBINES = ("mul", "add")


@accepts_keras_tensors
def ddf2d(
    inputs: tf.Tensor,
    channel_filters: tf.Tensor,
    spatial_filters: tf.Tensor,
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "same",
    heads: int = 1,
    combine: str = "mul",
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Filters images with decoupled dynamic filters: a factor for each position combined with one for each channel.

        w(n,i,j,u,v,c) = spatial_filters[n,i,j,head(c),u,v] * channel_filters[n,u,v,c]        for combine="mul"
        w(n,i,j,u,v,c) = spatial_filters[n,i,j,head(c),u,v] + channel_filters[n,u,v,c]        for combine="add"
        out[n,i,j,c] = sum_{u,v} w(n,i,j,u,v,c) * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    Here `s` are the strides, `d` is the dilation rate, and `r` is the number of zeros that the padding adds before the
    image: `d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`. All three may differ between the axes. Filters
    are not mirrored (cross-correlation). Taps outside the image are skipped. The combined filters `w` are never stored.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        channel_filters: Channel factors, `[batch, kernel_h, kernel_w, channels]`, of odd size.
        spatial_filters: Spatial factors, `[batch, out_height, out_width, heads*kernel_h*kernel_w]`: one head after the
            other, and the taps of each filter row by row.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair: the distance between neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output size
            `ceil(size / strides)`, windows centred on input `i * strides`. Or `"valid"`: no padding.
        heads: Number of spatial filters per position; it must divide the channels. `head(c) = c // (channels / heads)`.
        combine: How the factors are combined: `"mul"` or `"add"`.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs`, `spatial_filters` and the result have their
            channel axis second; `channel_filters` keep their order.

    Returns:
        `[batch, out_height, out_width, channels]`, with the dtype of `inputs`. Sums are computed in float32 or wider.

    Raises:
        ValueError: An argument, a rank or a shape is not as described.
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
        RuntimeError: The native implementation is requested and not available.

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
