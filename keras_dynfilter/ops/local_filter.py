# SPDX-License-Identifier: Apache-2.0
"""Dynamic local filtering: one filter per sample and position."""

from keras_dynfilter.ops import checks, filter2d
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry

NORMALIZATIONS = (None, "softmax")


def local_filter2d(
    inputs,
    filters,
    kernel_size,
    strides=1,
    dilation_rate=1,
    padding="same",
    heads=1,
    normalization=None,
    data_format="channels_last",
):
    """Filters every position of every sample with a filter of its own.

        out[n,i,j,c] = sum_{u,v} filters[n,i,j,head(c),u,v] * inputs[n, i*s + u*d - r, j*s + v*d - r, c]

    with `s` the strides, `d` the dilation rate, and `r = d*(kernel_size-1)/2` for `padding="same"`, 0 for `"valid"`,
    each of its axis. Channels of one head share a filter: `head(c) = c // (channels / heads)`. The taps are not
    mirrored (cross-correlation); those outside the image are skipped.

    Args:
        inputs: Images, `[batch, height, width, channels]`.
        filters: Filters, `[batch, out_height, out_width, heads*kernel_h*kernel_w]`, head-major, then row-major taps.
        kernel_size: Odd integer or pair `(kernel_h, kernel_w)`.
        strides: Positive integer or pair.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        padding: `"same"`: `dilation_rate * (kernel_size - 1) / 2` zeros on both sides, output
            `ceil(size / strides)`, windows centred on input `i * strides`; or `"valid"`: no padding.
        heads: Number of filters per position; divides the channels.
        normalization: None, or `"softmax"`: `filters` are logits, normalised over the taps of each filter.
        data_format: `"channels_last"`, or `"channels_first"`: `inputs`, `filters` and the result have their channel
            axis second.

    Returns:
        `[batch, out_height, out_width, channels]`, of the dtype of `inputs`; sums are accumulated in float32 at least.

    Raises:
        ValueError: An argument, rank or shape is not as described.
        TypeError: The dtypes are not floating-point, or differ.

    Example:

    >>> image = np.arange(5.0).reshape(1, 1, 5, 1)
    >>> to_the_right = np.tile([0.0, 0.0, 1.0], [1, 1, 5, 1])
    >>> local_filter2d(image, to_the_right, (1, 3)).numpy().ravel()
    array([1., 2., 3., 4., 0.])
    >>> alike = np.zeros((1, 1, 5, 3))
    >>> local_filter2d(image, alike, (1, 3), normalization="softmax").shape
    TensorShape([1, 1, 5, 1])

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 3.2.
    """
    inputs, filters = checks.tensors(inputs=inputs, filters=filters)
    geometry = Geometry.make(kernel_size, strides, dilation_rate, padding, heads)
    choice(normalization, "normalization", NORMALIZATIONS)
    kind = "softmax" if normalization == "softmax" else "spatial"
    return filter2d.filter2d(inputs, filters, None, kind, geometry, data_format, names=("filters", None))
