# SPDX-License-Identifier: Apache-2.0
"""The common path of the filter family: checks, layout, choice of implementation."""

from keras_dynfilter.ops import checks
from keras_dynfilter.ops.backends import composite, dispatch
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.layout import DATA_FORMATS, sizes, to_channels_first, to_channels_last


def filter2d(inputs, spatial, channel, weight, geometry, data_format, names=("spatial_filters", "channel_filters")):
    """Applies the factored filters `spatial` and `channel`.

    All are tensors, of `_arguments.tensors`; a factor that `weight` does not have is None. `names` are those of the
    factors in error texts.
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
    batch, height, width, channels = sizes(inputs, 4)
    if channels is not None and channels % geometry.heads:
        raise ValueError(f"Expected `heads` to divide the channels. Received: heads={geometry.heads}, {channels=}")
    if spatial is not None:
        out_height, out_width = geometry.output_shape((batch, height, width, channels))
        dims = dict(batch=batch, out_height=out_height, out_width=out_width)
        dims["heads*kernel_h*kernel_w"] = geometry.heads * geometry.taps
        checks.check_shape(names[0], spatial, **dims)
    if channel is not None:
        kernel_h, kernel_w = geometry.kernel_size
        dims = dict(batch=batch, kernel_h=kernel_h, kernel_w=kernel_w, channels=channels)
        checks.check_shape(names[1], channel, **dims)

    if dispatch.use_native():
        from keras_dynfilter.ops.backends import raw_ops

        output = raw_ops.filter2d(inputs, spatial, channel, weight, geometry)
    else:
        output = composite.filter2d(inputs, spatial, channel, weight, geometry)
    return to_channels_first(output) if data_format == "channels_first" else output


def window(filters, name="filters"):
    """The window `(kernel_h, kernel_w)` of channel filters `[batch, kernel_h, kernel_w, channels]`."""
    shape = filters.shape
    if shape.rank != 4 or None in shape[1:3].as_list():
        expected = f"Expected `{name}` to have shape (batch, kernel_h, kernel_w, channels) with a known window"
        raise ValueError(f"{expected}. Received: {name}.shape={shape}")
    return tuple(shape[1:3])
