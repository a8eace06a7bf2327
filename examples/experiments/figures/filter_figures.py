# SPDX-License-Identifier: Apache-2.0
"""Draws figures of generated filters as in Dynamic Filter Networks (https://arxiv.org/abs/1605.09673)."""

from typing import TYPE_CHECKING

import numpy as np

from examples.experiments.figures.layout import (
    LABELS,
    LINE,
    WIDEST,
    check_grey,
    check_shape,
    compact_figure,
    frame_size,
)
from keras_dynfilter.inspection import filters_to_flow
from keras_dynfilter.inspection.optional_packages import import_optional
from keras_dynfilter.ops.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR = 0.13  # inches, width of the colour bar
OVERVIEW = 72  # pixels, approximate length of the longer side of the overview of all filters


def stereo_figure(
    left: np.ndarray,
    right: np.ndarray,
    predictions: np.ndarray,
    disparity: np.ndarray,
    baseline: np.ndarray | None = None,
    true_disparity: np.ndarray | None = None,
    limits: tuple[float, float] | None = None,
) -> "Figure":
    """Draws figure 9 of the paper: predicted right views, and the disparity that the filters imply.

    Args:
        left: Left views in [0, 1], `[examples, height, width, 1]`.
        right: Right views, in the shape of `left`.
        predictions: Predicted right views, in the shape of `left`.
        disparity: Pixels, `[examples, height, width]`: the x component of `filters_to_flow`.
        baseline: Predictions of a second network, in the shape of `left`. None: there is no column for them.
        true_disparity: In the shape of `disparity`, not finite (drawn in grey) where it is unknown. None: there is no
            column for it.
        limits: Smallest and largest disparity of the colour scale. None: the smallest and largest disparity that occur.

    Returns:
        A `matplotlib.figure.Figure` with one row per example. All views of a row share the grey scale of the true
        views.

    Raises:
        ValueError: Shapes do not agree.
    """
    left = check_grey(left, "left", 4)
    columns = {"left": left, "right": check_shape(right, "right", left.shape)}
    columns["prediction"] = check_shape(predictions, "predictions", left.shape)
    if baseline is not None:
        columns["baseline"] = check_shape(baseline, "baseline", left.shape)
    maps = {"disparity": check_shape(disparity, "disparity", left.shape[:3])}
    if true_disparity is not None:
        maps["true disparity"] = check_shape(true_disparity, "true_disparity", left.shape[:3])
    if limits is None:
        known = np.concatenate([values[np.isfinite(values)] for values in maps.values()])
        limits = (known.min(), known.max()) if known.size else (0, 1)

    examples, count = len(left), len(columns) + len(maps)
    width, height = frame_size(left, count, 1.9)
    figure = compact_figure(count * (width + 0.04) + LABELS, examples * (height + 0.04) + 1.3 * LINE)
    axes = figure.subplots(examples, count, squeeze=False)
    for row in range(examples):
        views = [images[row, ..., 0].astype(np.float32) for images in columns.values()]
        low, high = min(view.min() for view in views[:2]), max(view.max() for view in views[:2])
        for axis, view in zip(axes[row], views):
            axis.imshow(view, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        for axis, values in zip(axes[row, len(columns) :], maps.values()):
            axis.set_facecolor("0.7")
            values = np.ma.masked_invalid(values[row].astype(np.float32))
            picture = axis.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], [*columns, *maps]):
        axis.set_title(title)
    figure.colorbar(picture, ax=axes, label="disparity (pixels)", aspect=examples * height / BAR, pad=0.01)
    return figure


def filters_figure(
    image: np.ndarray,
    filters: np.ndarray,
    kernel_size: int | tuple[int, int],
    positions: np.ndarray | list[tuple[int, int]] | None = None,
    columns: int = 3,
) -> "Figure":
    """Draws figure 10 of the paper: the filters at chosen positions, and an overview of the filters across the image.

    Args:
        image: The image that is filtered, values in [0, 1], `[height, width, 1]`.
        filters: The filters of its pixels after the softmax, `[height, width, kernel_h * kernel_w]`.
        kernel_size: Integer or pair `(kernel_h, kernel_w)`.
        positions: Rows and columns of the image, `[count, 2]`. None: nine evenly spaced positions.
        columns: Number of filters that are drawn side by side.

    Returns:
        A `matplotlib.figure.Figure` with the image and its numbered windows, the filters of these windows, and all
        filters of a coarse grid. Every filter is drawn from 0 to its own maximum, which is written above it.

    Raises:
        ValueError: Shapes do not agree, or a position is outside the image.
    """
    image = check_grey(image, "image", 3)
    geometry = Geometry.make(kernel_size, even=True)
    filters = check_shape(filters, "filters", image.shape[:2] + (geometry.taps,)).astype(np.float32)
    flow = filters_to_flow(filters, geometry.kernel_size)
    if positions is None:
        positions = [(y, x) for y in _evenly_spaced(len(image), 3) for x in _evenly_spaced(image.shape[1], 3)]
    positions = np.asarray(positions)
    are_pairs = positions.ndim == 2 and positions.shape[1] == 2 and len(positions) and positions.dtype.kind in "iu"
    if not are_pairs or (positions < 0).any() or (positions >= image.shape[:2]).any():
        expected = f"Expected `positions` to be pairs (row, column) in an image of {image.shape[:2]}"
        raise ValueError(f"{expected}. Received: positions={positions.tolist()}")

    figure = compact_figure(WIDEST, 4.2)
    left, middle, right = figure.subfigures(1, 5, width_ratios=[1, 0.04, 1, 0.04, 1])[::2]
    colors = [f"C{number % 10}" for number in range(len(positions))]
    chosen = filters[tuple(positions.T)]
    _mark_windows(left, image, positions, geometry, colors)
    _draw_filters(
        middle, chosen.reshape(-1, *geometry.kernel_size), flow[tuple(positions.T)], geometry, colors, columns
    )
    _draw_overview(right, filters, geometry)
    return figure


def _evenly_spaced(size, count):
    """Returns `count` evenly spaced indices below `size`."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)


def _mark_windows(figure, image, positions, geometry, colors):
    axis = figure.subplots()
    figure.suptitle("image and windows")
    axis.imshow(image[..., 0].astype(np.float32), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    (top, _), (left, _) = geometry.pads
    height, width = geometry.kernel_size
    Rectangle = import_optional("matplotlib.patches", "matplotlib", "filters_figure").Rectangle
    for number, ((y, x), color) in enumerate(zip(positions, colors), 1):
        corner = np.array([x - left - 0.5, y - top - 0.5])
        axis.add_patch(Rectangle(corner, width, height, fill=False, color=color, linewidth=1.5))
        text = dict(color="white", fontsize="small", fontweight="bold", ha="center", va="center")
        box = dict(boxstyle="circle,pad=0.15", facecolor=color, edgecolor="none")
        axis.text(*corner.clip(1, np.array(image.shape[1::-1]) - 2), str(number), bbox=box, **text)
    axis.set(xticks=[], yticks=[])


def _draw_filters(figure, filters, offsets, geometry, colors, columns):
    axes = figure.subplots(-(-len(filters) // columns), columns, squeeze=False).ravel()
    figure.suptitle("filters in these windows, largest weight")
    draw = _draw_bars if 1 in geometry.kernel_size else _draw_window
    for number, (axis, weights, offset, color) in enumerate(zip(axes, filters, offsets, colors), 1):
        marks = draw(axis, weights, offset, geometry)
        axis.spines[:].set(color=color, linewidth=2)
        axis.set_title(f"{number}: {weights.max():.2f}", fontsize="small", pad=4)
    for axis in axes[len(filters) :]:
        axis.set_visible(False)
    figure.legend(marks, ["centre", "mean offset"], loc="outside lower center", ncols=2, frameon=False)


def _draw_window(axis, weights, offset, geometry):
    (top, _), (left, _) = geometry.pads
    axis.imshow(weights, cmap="gray", vmin=0, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    (centre,) = axis.plot(left, top, "+", color="tab:cyan", markersize=7)
    (mean,) = axis.plot(left + offset[0], top + offset[1], "o", color="tab:red", fillstyle="none", markersize=6)
    return centre, mean


def _draw_bars(axis, weights, offset, geometry):
    """Draws the weights of a window of one row or column as bars over the offset in pixels."""
    direction = 0 if geometry.kernel_size[0] == 1 else 1  # x or y
    before = geometry.pads[1 - direction][0]
    axis.bar(np.arange(weights.size) - before, weights.ravel(), width=1.0, color="0.6")
    centre = axis.axvline(0, color="tab:cyan")
    mean = axis.axvline(offset[direction], color="tab:red", linestyle="--")
    axis.set(yticks=[], xticks=sorted({-before, 0, weights.size - 1 - before}))
    axis.tick_params(labelsize="small", length=2)
    return centre, mean


def _draw_overview(figure, filters, geometry):
    """Draws the filters of a coarse grid of pixels, each in the place of its pixel, with lines between them."""
    longer = max(filters.shape[:2])
    lines = [int(extent > 1) for extent in geometry.kernel_size]
    rows, columns = (
        _evenly_spaced(size, int(np.clip(round(OVERVIEW * size / longer / (extent + line)), 1, size)))
        for size, extent, line in zip(filters.shape, geometry.kernel_size, lines)
    )
    tiles = filters[np.ix_(rows, columns)].reshape(len(rows), len(columns), *geometry.kernel_size)
    tiles = tiles / tiles.max(axis=(2, 3), keepdims=True)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, lines[0]), (0, lines[1])), constant_values=np.nan)
    mosaic = tiles.transpose(0, 2, 1, 3).reshape(len(rows) * tiles.shape[2], -1)
    mosaic = mosaic[: len(mosaic) - lines[0], : mosaic.shape[1] - lines[1]]
    axis = figure.subplots()
    figure.suptitle("filters across the image")
    axis.set_facecolor("tab:blue")
    axis.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
