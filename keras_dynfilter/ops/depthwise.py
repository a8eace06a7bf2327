# SPDX-License-Identifier: Apache-2.0
"""Dynamic depth-wise convolution: one filter per sample and channel."""

from keras_dynfilter.ops import _family
from keras_dynfilter.ops.geometry import Geometry


def dynamic_depthwise_conv2d(inputs, filters, strides=1, dilation_rate=1, padding="same", data_format="channels_last"):
    """Convolves every channel of every sample with a filter of its own.

        out[n,i,j,c] = sum_{u,v} filters[n,u,v,c] * inputs[n, i*s + (u-r)*d, j*s + (v-r)*d, c]

    The taps are not mirrored (cross-correlation); those outside the image are skipped.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, kernel_h, kernel_w, channels]`, of odd size.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output
            `ceil(size / strides)`, windows centred on input `i * strides`; or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second,
            `filters` stay as they are.

    Returns:
        `[batch, out_height, out_width, channels]`, of the dtype of `inputs`; sums are accumulated in float32 at least.

    Raises:
        ValueError: An argument, rank or shape is not as described.
        TypeError: The dtypes are not floating-point, or differ.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1, for
        filters that do not mix channels.
    """
    geometry = Geometry.make(_family.window(filters), strides, dilation_rate, padding)
    return _family.filter2d(inputs, None, filters, "channel", geometry, data_format, names=(None, "filters"))
