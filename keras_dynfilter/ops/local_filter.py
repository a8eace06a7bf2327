# SPDX-License-Identifier: Apache-2.0
"""Dynamic local filtering: one filter per sample and position."""

from collections.abc import Sequence

import tensorflow as tf

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.op_layer import accepts_keras_tensors

NORMALIZATIONS = (None, "softmax")


@accepts_keras_tensors
def local_filter2d(
    inputs: tf.Tensor,
    filters: tf.Tensor,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "same",
    heads: int = 1,
    normalization: str | None = None,
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Filters every position of every sample with its own filter.

        out[n,i,j,c] = sum_{u,v} filters[n,i,j,head(c),u,v] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    Here `s` are the strides, `d` is the dilation rate, and `r` is the number of zeros that the padding adds before the
    image: `d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`. All three may differ between the axes. The
    channels of one head share a filter: `head(c) = c // (channels / heads)`. Filters are not mirrored
    (cross-correlation). Taps outside the image are skipped.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, out_height, out_width, heads*kernel_h*kernel_w]`: one head after the other, and the
            taps of each filter row by row.
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair: the distance between neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output size
            `ceil(size / strides)`, windows centred on input `i * strides`. Or `"valid"`: no padding.
        heads: Number of filters per position; it must divide the channels.
        normalization: None, or `"softmax"`: `filters` are logits, and a softmax over the taps of each filter
            normalises them.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs`, `filters` and the result have their channel
            axis second.

    Returns:
        `[batch, out_height, out_width, channels]`, with the dtype of `inputs`. Sums are computed in float32 or wider.

    Raises:
        ValueError: An argument, a rank or a shape is not as described.
        TypeError: An argument cannot become a tensor, or the dtypes are not floating-point or differ.
        RuntimeError: The native implementation is requested and not available.

    Example:

    >>> image = np.arange(5.0).reshape(1, 1, 5, 1)
    >>> to_the_right = np.tile([0.0, 0.0, 1.0], [1, 1, 5, 1])
    >>> local_filter2d(image, to_the_right, (1, 3)).numpy().ravel()
    array([1., 2., 3., 4., 0.])
    >>> logits = np.zeros((1, 1, 5, 3))
    >>> local_filter2d(image, logits, (1, 3), normalization="softmax").shape
    TensorShape([1, 1, 5, 1])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.2.
    """
    inputs, filters = checks.tensors(inputs=inputs, filters=filters)
    geometry = Geometry.make(kernel_size, strides, dilation_rate, padding, heads)
    choice(normalization, "normalization", NORMALIZATIONS)
    kind = "softmax" if normalization == "softmax" else "spatial"
    return filter2d.filter2d(inputs, filters, None, kind, geometry, data_format, names=("filters", ""))
