# SPDX-License-Identifier: Apache-2.0
"""Optical flow as it is read off generated filters (https://arxiv.org/abs/1605.09673), its colours and its error.

A vector (x, y) points from a pixel to where its value comes from, in pixels to the right and down. This is backward
flow, `later[y, x] = earlier[y + flow_y, x + flow_x]`: content moves by minus the vector.
"""

import numbers

import numpy as np

from keras_dynfilter.inspection.optional_packages import need
from keras_dynfilter.ops.checks import choice
from keras_dynfilter.ops.geometry import Geometry

STYLES = ("hsv", "middlebury")
# How far from 1 the taps of a softmax may sum up: bfloat16 rounds by 0.4 %.
SUM_TOLERANCE = 0.02


def filters_to_flow(filters, kernel_size):
    """The expected offset of every filter, that is, where its weights point on average.

    Args:
        filters: Filters after the softmax, `[..., kernel_h * kernel_w]`, taps row by row.
        kernel_size: Integer or pair `(kernel_h, kernel_w)`. Windows of even size have one more tap at the end, as in
            `DynamicConv2D`.

    Returns:
        Flow (x, y) in pixels, `[..., 2]`; float64 for float64 filters, else float32.

    Raises:
        ValueError: The last axis has not `kernel_h * kernel_w` taps, or a filter does not sum up to 1.
    """
    geometry = Geometry.make(kernel_size, even=True)
    filters = np.asarray(filters)
    if filters.dtype != np.float64:
        filters = filters.astype(np.float32)
    if filters.ndim < 1 or filters.shape[-1] != geometry.taps:
        expected = f"Expected `filters` to have {geometry.taps} taps on the last axis for {geometry.kernel_size}"
        raise ValueError(f"{expected}. Received: filters.shape={filters.shape}")
    wrong = np.abs(filters.sum(axis=-1) - 1)
    if not (wrong <= SUM_TOLERANCE).all():
        expected = "Expected `filters` to sum up to 1 over the taps, as they do after a softmax"
        raise ValueError(f"{expected}. Received: filters with sums up to {wrong.max():g} away from 1")
    (top, _), (left, _) = geometry.pads
    kernel_h, kernel_w = geometry.kernel_size
    x, y = np.meshgrid(np.arange(kernel_w) - left, np.arange(kernel_h) - top)
    return filters @ np.stack([x.ravel(), y.ravel()], axis=-1).astype(filters.dtype)


def _vectors(flow):
    flow = np.asarray(flow)
    if flow.ndim < 3 or flow.shape[-1] != 2 or not flow.size:
        expected = "Expected `flow` to be of shape (..., height, width, 2) and not empty"
        raise ValueError(f"{expected}. Received: flow.shape={flow.shape}")
    return flow.astype(np.float64)


def flow_to_color(flow, style="hsv", max_magnitude=None):
    """Colours of a flow field: the hue says the direction, the strength of the colour the magnitude.

    Args:
        flow: Flow (x, y) in pixels, `[..., height, width, 2]`. Vectors that are not finite come out black.
        style: `"hsv"`, as in the paper, or `"middlebury"`, the wheel of the Middlebury benchmark, which needs
            imgviz; its colours lie one of the 55 hues beside those of the benchmark.
        max_magnitude: The magnitude in pixels of full colour; longer vectors are drawn like it. None: the longest
            vector of every field, so that colours of two fields cannot be compared.

    Returns:
        uint8 colours, `[..., height, width, 3]`; white where nothing moves.

    Raises:
        ImportError: matplotlib, or imgviz for `"middlebury"`, is not installed.
        ValueError: An argument is not as above.
    """
    choice(style, "style", STYLES)
    flow = _vectors(flow)
    known = np.isfinite(flow).all(axis=-1)
    flow = np.where(known[..., None], flow, 0.0)
    magnitude = np.hypot(flow[..., 0], flow[..., 1])
    if max_magnitude is None:
        longest = magnitude.max(axis=(-2, -1), keepdims=True)
        longest = np.where(longest > 0, longest, 1.0)
    else:
        longest = _positive(max_magnitude, "max_magnitude")
    unit = flow / np.maximum(magnitude, longest)[..., None]
    colors = _hsv(unit) if style == "hsv" else _middlebury(unit)
    return np.where(known[..., None], colors, 0).astype(np.uint8)


def _positive(value, name):
    if not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise ValueError(f"Expected `{name}` to be a number above zero. Received: {name}={value!r}")
    return float(value)


def _hsv(unit):
    hsv_to_rgb = need("matplotlib.colors", "matplotlib", 'flow_to_color(style="hsv")').hsv_to_rgb
    hue = (np.arctan2(unit[..., 1], unit[..., 0]) + np.pi) / (2 * np.pi)
    saturation = np.minimum(np.hypot(unit[..., 0], unit[..., 1]), 1.0)
    return np.rint(255 * hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1)))


def _middlebury(unit):
    imgviz = need("imgviz", "imgviz", 'flow_to_color(style="middlebury")')
    # imgviz darkens vectors longer than 1, which its rounding to float32 must not make of those of length 1.
    inside = unit.reshape(-1, unit.shape[-2], 2) * (1 - 1e-6)
    return imgviz.flow2rgb(inside, max_norm=1.0).reshape(unit.shape[:-1] + (3,))


def end_point_error(flow, true_flow, mask=None):
    """Mean distance in pixels of flow vectors from the true ones.

    Args:
        flow: Flow in pixels, `[..., 2]`, or `[..., 1]` where there is only one direction, as in stereo.
        true_flow: As `flow`.
        mask: What counts, `[...]`: non-zero where the truth is known. None: everything.

    Returns:
        A float: NaN or infinite where a vector that counts is.

    Raises:
        ValueError: The shapes do not agree, or nothing counts.
    """
    flow, true_flow = (np.asarray(vectors, np.float64) for vectors in (flow, true_flow))
    if flow.ndim < 1 or flow.shape[-1] not in (1, 2) or flow.shape != true_flow.shape:
        expected = "Expected `flow` and `true_flow` to be of one shape (..., 2) or (..., 1)"
        raise ValueError(f"{expected}. Received: flow.shape={flow.shape}, true_flow.shape={true_flow.shape}")
    mask = np.ones(flow.shape[:-1], bool) if mask is None else np.asarray(mask).astype(bool)
    if mask.shape != flow.shape[:-1]:
        raise ValueError(f"Expected `mask` to be of shape {flow.shape[:-1]}. Received: mask.shape={mask.shape}")
    if not mask.any():
        raise ValueError("Expected at least one vector that counts. Received: no vector, or a `mask` without any")
    return float(np.linalg.norm(flow[mask] - true_flow[mask], axis=-1).mean())


def show_color_wheel(axis, style="hsv", max_magnitude=None):
    """Draws the legend of `flow_to_color`: the colour of every vector, from the centre of the wheel.

    Args:
        axis: A matplotlib axis.
        style: As in `flow_to_color`.
        max_magnitude: The magnitude in pixels at the rim, written below the wheel. None: nothing is written.
    """
    label = "" if max_magnitude is None else f"{_positive(max_magnitude, 'max_magnitude'):.3g} px"
    points = np.linspace(-1, 1, 257)
    vectors = np.stack(np.meshgrid(points, points), axis=-1)
    colors = flow_to_color(vectors, style, max_magnitude=1.0)
    inside = np.hypot(vectors[..., 0], vectors[..., 1])[..., None] <= 1
    rgba = np.concatenate([colors, np.where(inside, 255, 0).astype(np.uint8)], axis=-1)
    axis.imshow(rgba, extent=(-1, 1, 1, -1), interpolation="bilinear")
    axis.axhline(0, color="black", linewidth=0.4)
    axis.axvline(0, color="black", linewidth=0.4)
    axis.set(xlim=(-1.02, 1.02), ylim=(1.02, -1.02), xticks=[], yticks=[])
    axis.set_xlabel(label)
    axis.spines[:].set_visible(False)
