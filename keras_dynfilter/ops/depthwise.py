# SPDX-License-Identifier: Apache-2.0
"""Dynamic depth-wise convolution: one filter per sample and channel."""

from collections.abc import Sequence

import tensorflow as tf

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.op_layer import accepts_keras_tensors


@accepts_keras_tensors
def dynamic_depthwise_conv2d(
    inputs: tf.Tensor,
    filters: tf.Tensor,
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "same",
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Convolves every channel of every sample with its own filter.

        out[n,i,j,c] = sum_{u,v} filters[n,u,v,c] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    Here `s` are the strides, `d` is the dilation rate, and `r` is the number of zeros that the padding adds before the
    image: `d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`. All three may differ between the axes. Filters
    are not mirrored (cross-correlation). Taps outside the image are skipped.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, kernel_h, kernel_w, channels]`, of odd size.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair: the distance between neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output size
            `ceil(size / strides)`, windows centred on input `i * strides`. Or `"valid"`: no padding.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs` and the result have their channel axis second;
            `filters` keep their order.

    Returns:
        `[batch, out_height, out_width, channels]`, with the dtype of `inputs`. Sums are computed in float32 or wider.

    Raises:
        ValueError: An argument, a rank or a shape is not as described.
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
        RuntimeError: The native implementation is requested and not available.

    Example:

    >>> image = np.arange(5.0).reshape(1, 1, 5, 1)
    >>> difference = np.reshape([-1.0, 0.0, 1.0], [1, 1, 3, 1])
    >>> dynamic_depthwise_conv2d(image, difference, padding="valid").numpy().ravel()
    array([2., 2., 2.])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.1, but with
        filters that do not mix channels.
    """
    inputs, filters = checks.tensors(inputs=inputs, filters=filters)
    geometry = Geometry.make(filter2d.window(filters), strides, dilation_rate, padding)
    return filter2d.filter2d(inputs, None, filters, "channel", geometry, data_format, names=("", "filters"))
