# SPDX-License-Identifier: Apache-2.0
"""Computes `local_filter2d`, `dynamic_depthwise_conv2d` and `ddf2d`: checks, data format, choice of implementation."""

import tensorflow as tf

from keras_dynfilter.ops import backends, checks, run_time_checks
from keras_dynfilter.ops.backends import composite, raw_ops
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import DATA_FORMATS, sizes, static_sizes, to_channels_first, to_channels_last

# Kind of filter -> public op. `backends.choose` expects its name.
_OP_OF_KIND = {
    "spatial": "local_filter2d",
    "softmax": "local_filter2d",
    "channel": "dynamic_depthwise_conv2d",
    "mul": "ddf2d",
    "add": "ddf2d",
}


def filter2d(
    inputs: tf.Tensor,
    spatial: tf.Tensor | None,
    channel: tf.Tensor | None,
    kind: str,
    geometry: Geometry,
    data_format: str,
    names: tuple[str, str] = ("spatial_filters", "channel_filters"),
) -> tf.Tensor:
    """Applies filters that consist of a spatial factor, a channel factor, or both.

    Args:
        inputs: Images, `[batch, height, width, channels]`, or `[batch, channels, height, width]` for
            `data_format="channels_first"`.
        spatial: Spatial filters, `[batch, out_height, out_width, heads*kernel_h*kernel_w]`, with the axes in the order
            of `data_format`. None for `kind="channel"`.
        channel: Channel filters, `[batch, kernel_h, kernel_w, channels]`, for both data formats. None for
            `kind="spatial"` and `kind="softmax"`.
        kind: How the factors form the filter: `"spatial"`, `"softmax"` (`spatial` holds logits), `"channel"`, `"mul"`
            (product) or `"add"` (sum).
        geometry: The window and the number of heads.
        data_format: `"channels_last"` or `"channels_first"`.
        names: Names of the arguments `spatial` and `channel` in error texts.

    Returns:
        `[batch, out_height, out_width, channels]`, with the axes in the order of `data_format`, and the dtype of
        `inputs`.

    Raises:
        ValueError: `data_format`, a rank or a shape is not as described.
        RuntimeError: The native implementation is requested and not available.
    """
    choice(data_format, "data_format", DATA_FORMATS)
    inputs = checks.check_rank("inputs", inputs, data_format)
    if spatial is not None:
        spatial = checks.check_rank(names[0], spatial, data_format)
    if channel is not None:
        channel = checks.check_rank(names[1], channel, "[batch, kernel_h, kernel_w, channels]")
    if data_format == "channels_first":
        inputs = to_channels_last(inputs)
        spatial = None if spatial is None else to_channels_last(spatial)
    batch, height, width, channels = static_sizes(inputs, 4)
    if channels is not None and channels % geometry.heads:
        raise ValueError(f"Expected `heads` to divide the channels. Received: heads={geometry.heads}, {channels=}")
    if spatial is not None:
        out_height, out_width = geometry.output_shape((batch, height, width, channels))
        expected = dict(batch=batch, out_height=out_height, out_width=out_width)
        expected["heads*kernel_h*kernel_w"] = geometry.heads * geometry.taps
        checks.check_shape(names[0], spatial, **expected)
    if channel is not None:
        kernel_h, kernel_w = geometry.kernel_size
        expected = dict(batch=batch, kernel_h=kernel_h, kernel_w=kernel_w, channels=channels)
        checks.check_shape(names[1], channel, **expected)

    chosen = backends.choose(_OP_OF_KIND[kind])
    if chosen.is_fallback:
        backends.warn_of_fallback(chosen.reason)
    if chosen.name == "native":
        output = raw_ops.filter2d(inputs, spatial, channel, kind, geometry)
    else:
        if run_time_checks.needed(inputs, spatial, channel):
            inputs, spatial, channel = _checked_when_run(inputs, spatial, channel, geometry, names)
        output = composite.filter2d(inputs, spatial, channel, kind, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


def _checked_when_run(inputs, spatial, channel, geometry, names):
    """Returns the operands. When the graph runs, the shapes of the filters are checked against the inputs."""
    batch, height, width, channels = sizes(inputs)
    if geometry.heads > 1 and inputs.shape[-1] is None:
        inputs = run_time_checks.check_heads(inputs, geometry.heads)
    if spatial is not None:
        out_height, out_width = (tf.maximum(size, 0) for size in geometry.output_shape((batch, height, width)))
        depth = {"heads*kernel_h*kernel_w": geometry.heads * geometry.taps}
        spatial = run_time_checks.check_shape(
            names[0], spatial, batch=batch, out_height=out_height, out_width=out_width, **depth
        )
    if channel is not None:
        kernel_h, kernel_w = geometry.kernel_size
        channel = run_time_checks.check_shape(
            names[1], channel, batch=batch, kernel_h=kernel_h, kernel_w=kernel_w, channels=channels
        )
    return inputs, spatial, channel


def window(filters: tf.Tensor, name: str = "filters") -> tuple[int, int]:
    """Returns the window `(kernel_h, kernel_w)` of channel filters `[batch, kernel_h, kernel_w, channels]`.

    Raises:
        ValueError: The filters have another rank, or the size of their window is unknown.
    """
    shape = filters.shape
    if shape.rank != 4 or None in shape[1:3].as_list():
        expected = f"Expected `{name}` to have shape (batch, kernel_h, kernel_w, channels) with a known window"
        raise ValueError(f"{expected}. Received: {name}.shape={shape}")
    return tuple(shape[1:3])
