# SPDX-License-Identifier: Apache-2.0
"""Colours optical flow, and draws the colour wheel that explains the colours."""

from typing import Any

import numpy as np

from keras_dynfilter.inspection.optional_packages import import_optional
from keras_dynfilter.ops.checks import choice, number

STYLES = ("hsv", "middlebury")


def flow_to_color(flow: np.ndarray, style: str = "hsv", max_magnitude: float | None = None) -> np.ndarray:
    """Colours flow vectors: the hue shows the direction, the saturation shows the magnitude.

    Args:
        flow: Flow (x, y) in pixels, `[..., height, width, 2]`. Vectors that are not finite become black.
        style: `"hsv"`, as in the paper, or `"middlebury"`, the colour wheel of the Middlebury benchmark, which needs
            imgviz. The hues of imgviz are off by one of the benchmark's 55 steps.
        max_magnitude: The magnitude with full saturation, in pixels. Longer vectors get the same colour. None: the
            length of the longest vector of each field; colours of two fields are then not comparable.

    Returns:
        Colours, `[..., height, width, 3]`, uint8. Pixels without motion are white.

    Raises:
        ImportError: matplotlib, or imgviz for `"middlebury"`, is not installed.
        ValueError: An argument is not as described.
    """
    choice(style, "style", STYLES)
    flow = _check_flow(flow)
    finite = np.isfinite(flow).all(axis=-1)
    flow = np.where(finite[..., None], flow, 0.0)
    magnitude = np.hypot(flow[..., 0], flow[..., 1])
    if max_magnitude is None:
        longest = magnitude.max(axis=(-2, -1), keepdims=True)
        longest = np.where(longest > 0, longest, 1.0)
    else:
        longest = _check_magnitude(max_magnitude)
    unit = flow / np.maximum(magnitude, longest)[..., None]
    colors = _hsv(unit) if style == "hsv" else _middlebury(unit)
    return np.where(finite[..., None], colors, 0).astype(np.uint8)


def show_color_wheel(axis: Any, style: str = "hsv", max_magnitude: float | None = None) -> None:
    """Draws the legend of `flow_to_color`: each point of a wheel has the colour of the vector from the centre to it.

    Args:
        axis: A matplotlib axis.
        style: As in `flow_to_color`.
        max_magnitude: The magnitude at the rim in pixels, as text below the wheel. None: no text.

    Raises:
        ImportError: matplotlib, or imgviz for `"middlebury"`, is not installed.
        ValueError: `style` is unknown, or `max_magnitude` is not above zero.
    """
    label = "" if max_magnitude is None else f"{_check_magnitude(max_magnitude):.3g} px"
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


def _check_flow(flow):
    flow = np.asarray(flow)
    if flow.ndim < 3 or flow.shape[-1] != 2 or not flow.size:
        expected = "Expected `flow` to be of shape (..., height, width, 2) and not empty"
        raise ValueError(f"{expected}. Received: flow.shape={flow.shape}")
    return flow.astype(np.float64)


def _check_magnitude(max_magnitude):
    return number(max_magnitude, "max_magnitude", above=0, expected="a number above zero")


def _hsv(unit):
    """Returns the colours of vectors of at most unit length, as floats in [0, 255]."""
    colors = import_optional("matplotlib.colors", "matplotlib", 'flow_to_color(style="hsv")')
    hue = (np.arctan2(unit[..., 1], unit[..., 0]) + np.pi) / (2 * np.pi)
    saturation = np.minimum(np.hypot(unit[..., 0], unit[..., 1]), 1.0)
    return np.rint(255 * colors.hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1)))


def _middlebury(unit):
    """Returns the colours of vectors of at most unit length, as integers in [0, 255]."""
    imgviz = import_optional("imgviz", "imgviz", 'flow_to_color(style="middlebury")')
    # imgviz darkens vectors longer than 1; keep unit vectors below 1 after its rounding to float32.
    inside = unit.reshape(-1, unit.shape[-2], 2) * (1 - 1e-6)
    return imgviz.flow2rgb(inside, max_norm=1.0).reshape(unit.shape[:-1] + (3,))
