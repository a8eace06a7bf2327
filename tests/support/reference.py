# SPDX-License-Identifier: Apache-2.0
"""Reference implementation of the ops, which all others must match: slow and obvious NumPy loops in float64.

All images are channels-last. A tap outside the image is skipped, whatever value its filter has.
"""

import numpy as np


def output_size(size, kernel, stride, dilation, padding):
    if padding == "same":
        return -(-size // stride)
    return max((size - (kernel - 1) * dilation - 1) // stride + 1, 0)


def pad_before(kernel, dilation, padding):
    return (kernel - 1) * dilation // 2 if padding == "same" else 0


def taps_inside(shape, kernel_size, strides, dilation_rate, padding):
    """Yields `(n, i, j, u, v, y, x)`: tap `(u, v)` of output `(i, j)` of sample `n` is over the pixel `(y, x)`."""
    batch, height, width = shape[:3]
    window = list(zip((height, width), kernel_size, strides, dilation_rate))
    out_height, out_width = (output_size(*axis, padding) for axis in window)
    top, left = (pad_before(kernel, dilation, padding) for _, kernel, _, dilation in window)
    for n in range(batch):
        for i in range(out_height):
            for j in range(out_width):
                for u in range(kernel_size[0]):
                    for v in range(kernel_size[1]):
                        y = i * strides[0] + u * dilation_rate[0] - top
                        x = j * strides[1] + v * dilation_rate[1] - left
                        if 0 <= y < height and 0 <= x < width:
                            yield n, i, j, u, v, y, x


def output_shape(shape, geometry):
    window = zip(shape[1:3], geometry["kernel_size"], geometry["strides"], geometry["dilation_rate"])
    return tuple(output_size(*axis, geometry["padding"]) for axis in window)


def softmax(logits, heads):
    """Normalises `[..., heads * taps]` over the taps of each head."""
    shape = logits.shape
    logits = logits.reshape(*shape[:3], heads, shape[3] // heads)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).reshape(shape)


def filter2d(inputs, spatial, channel, kind, *, kernel_size, strides, dilation_rate, padding, heads):
    """Applies filters that are made from a spatial factor, a channel factor, or both.

    Args:
        inputs: `[batch, height, width, channels]`.
        spatial: `[batch, out_height, out_width, heads * taps]`, or None.
        channel: `[batch, kernel_h, kernel_w, channels]`, or None.
        kind: `"spatial"`, `"softmax"`, `"channel"`, `"mul"` or `"add"`.
    """
    geometry = dict(kernel_size=kernel_size, strides=strides, dilation_rate=dilation_rate, padding=padding)
    if kind == "softmax":
        spatial, kind = softmax(spatial, heads), "spatial"
    channels = inputs.shape[3]
    output = np.zeros((inputs.shape[0], *output_shape(inputs.shape, geometry), channels))
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        s, c = _factors(spatial, channel, (n, i, j, u, v), kernel_size, heads, channels)
        output[n, i, j] += _combined(s, c, kind) * inputs[n, y, x]
    return output


def filter2d_gradients(
    inputs, spatial, channel, kind, upstream, *, kernel_size, strides, dilation_rate, padding, heads
):
    """Computes the gradients of `sum(upstream * filter2d(...))` with respect to `inputs`, `spatial` and `channel`.

    The gradient of an absent factor is None.
    """
    geometry = dict(kernel_size=kernel_size, strides=strides, dilation_rate=dilation_rate, padding=padding)
    if kind == "softmax":
        spatial = softmax(spatial, heads)
        rest = dict(geometry, heads=heads)
        d_inputs, d_spatial, _ = filter2d_gradients(inputs, spatial, None, "spatial", upstream, **rest)
        return d_inputs, softmax_gradient(spatial, d_spatial, heads), None
    channels = inputs.shape[3]
    d_inputs = np.zeros(inputs.shape)
    d_spatial = None if spatial is None else np.zeros(spatial.shape)
    d_channel = None if channel is None else np.zeros(channel.shape)
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        s, c = _factors(spatial, channel, (n, i, j, u, v), kernel_size, heads, channels)
        d_inputs[n, y, x] += upstream[n, i, j] * _combined(s, c, kind)
        d_filter = upstream[n, i, j] * inputs[n, y, x]
        if spatial is not None:
            d_factor = d_filter * c if kind == "mul" else d_filter
            for head, part in enumerate(np.split(d_factor, heads)):
                d_spatial[n, i, j, _spatial_index(head, u, v, kernel_size)] += part.sum()
        if channel is not None:
            d_channel[n, u, v] += d_filter * s if kind == "mul" else d_filter
    return d_inputs, d_spatial, d_channel


def softmax_gradient(probabilities, gradient, heads, sign=-1):
    """Converts the gradient of the probabilities to the gradient of the logits.

    With `sign=1` and absolute values, the result bounds the rounding errors.
    """
    shape = probabilities.shape
    p, g = (value.reshape(*shape[:3], heads, shape[3] // heads) for value in (probabilities, gradient))
    return (p * (g + sign * (p * g).sum(axis=-1, keepdims=True))).reshape(shape)


def dynamic_conv2d(inputs, filters, *, strides, dilation_rate, padding):
    """Applies one filter bank `[kernel_h, kernel_w, channels, output_maps]` per sample. Windows may be even."""
    geometry = dict(kernel_size=filters.shape[1:3], strides=strides, dilation_rate=dilation_rate, padding=padding)
    output = np.zeros((inputs.shape[0], *output_shape(inputs.shape, geometry), filters.shape[-1]))
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        output[n, i, j] += inputs[n, y, x] @ filters[n, u, v]
    return output


def dynamic_conv2d_gradients(inputs, filters, upstream, *, strides, dilation_rate, padding):
    geometry = dict(kernel_size=filters.shape[1:3], strides=strides, dilation_rate=dilation_rate, padding=padding)
    d_inputs, d_filters = np.zeros(inputs.shape), np.zeros(filters.shape)
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        d_inputs[n, y, x] += filters[n, u, v] @ upstream[n, i, j]
        d_filters[n, u, v] += np.outer(inputs[n, y, x], upstream[n, i, j])
    return d_inputs, d_filters


def local_conv2d(inputs, filters, *, strides, dilation_rate, padding):
    """Applies one filter bank `[kernel_h, kernel_w, channels, output_maps]` per sample and position."""
    geometry = dict(kernel_size=filters.shape[3:5], strides=strides, dilation_rate=dilation_rate, padding=padding)
    output = np.zeros((inputs.shape[0], *output_shape(inputs.shape, geometry), filters.shape[-1]))
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        output[n, i, j] += inputs[n, y, x] @ filters[n, i, j, u, v]
    return output


def local_conv2d_gradients(inputs, filters, upstream, *, strides, dilation_rate, padding):
    geometry = dict(kernel_size=filters.shape[3:5], strides=strides, dilation_rate=dilation_rate, padding=padding)
    d_inputs, d_filters = np.zeros(inputs.shape), np.zeros(filters.shape)
    for n, i, j, u, v, y, x in taps_inside(inputs.shape, **geometry):
        d_inputs[n, y, x] += filters[n, i, j, u, v] @ upstream[n, i, j]
        d_filters[n, i, j, u, v] = np.outer(inputs[n, y, x], upstream[n, i, j])
    return d_inputs, d_filters


def _spatial_index(head, u, v, kernel_size):
    return (head * kernel_size[0] + u) * kernel_size[1] + v


def _factors(spatial, channel, position, kernel_size, heads, channels):
    """Returns the spatial and the channel factor of a tap at a position, one number per channel, or None if absent."""
    n, i, j, u, v = position
    s = c = None
    if spatial is not None:
        per_head = [spatial[n, i, j, _spatial_index(head, u, v, kernel_size)] for head in range(heads)]
        s = np.repeat(per_head, channels // heads)
    if channel is not None:
        c = channel[n, u, v]
    return s, c


def _combined(s, c, kind):
    return {"spatial": lambda: s, "channel": lambda: c, "mul": lambda: s * c, "add": lambda: s + c}[kind]()
