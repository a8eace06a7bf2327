# SPDX-License-Identifier: Apache-2.0
"""Draws filters and images side by side:

figure = new_figure(10, 4)
show_filters(figure, {"learned": learned, "true": true}, titles=["0°", "90°"])
figure.savefig("filters.png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_dynfilter.inspection.optional_packages import import_optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

# Blue, white (zero) and red, which people with all common forms of colour vision can distinguish.
COLOR_MAP = "RdBu_r"


def new_figure(width: float, height: float) -> Figure:
    """Creates an empty matplotlib figure of `width` x `height` inches, which needs no display.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        A `matplotlib.figure.Figure` for `show_filters` and `show_images` to draw into.

    Raises:
        ImportError: matplotlib is not installed.
    """
    module = import_optional("matplotlib.figure", "matplotlib", "new_figure")
    return module.Figure(figsize=(width, height), layout="constrained")


def show_filters(
    figure: Figure | SubFigure, rows: Mapping[str, np.ndarray], titles: Sequence[str], label: str = "weight"
) -> None:
    """Draws rows of filters with a common colour scale that is centred on zero.

    Args:
        figure: A matplotlib figure or subfigure.
        rows: Filters by label of the row, `[columns, kernel_h, kernel_w]` each.
        titles: A title for each column.
        label: Text at the colour bar.

    Raises:
        ValueError: There is no row or no column, a row has another shape, or the number of filters in a row differs
            from the number of titles.
    """
    rows = {name: np.asarray(filters) for name, filters in rows.items()}
    for name, value in (("rows", rows), ("titles", titles)):
        if not len(value):
            raise ValueError(f"Expected `{name}` not to be empty. Received: {name}={value!r}")
    for name, filters in rows.items():
        if filters.ndim != 3 or len(filters) != len(titles) or not filters.size:
            expected = f"Expected `rows` to hold filters of shape ({len(titles)}, kernel_h, kernel_w)"
            raise ValueError(f"{expected}. Received: rows[{name!r}].shape={filters.shape}")
    limit = max(float(np.abs(filters).max()) for filters in rows.values()) or 1.0
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (name, filters) in zip(axes, rows.items()):
        for axis, weights in zip(row, filters):
            picture = axis.imshow(weights, cmap=COLOR_MAP, vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize="large")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title)
    figure.colorbar(picture, ax=axes, label=label, shrink=0.75, aspect=25)


def show_images(
    figure: Figure | SubFigure,
    images: Mapping[str, np.ndarray],
    grey: Sequence[str] = (),
    label: str = "value",
    percentile: float = 99.7,
) -> None:
    """Draws images side by side; signed images share one colour scale that is centred on zero.

    Args:
        figure: A matplotlib figure or subfigure.
        images: Images by title, `[height, width]` each.
        grey: Titles of the images to draw in grey, each from its own minimum to its own maximum. All other images are
            signed.
        label: Text at the colour bar of the signed images.
        percentile: The colour scale ends at this percentile of the magnitudes of the signed images, so that a few large
            values do not make all other pixels pale.

    Raises:
        ValueError: There is no image, or an image is empty or not of rank 2.
    """
    images = {title: np.asarray(image) for title, image in images.items()}
    if not images:
        raise ValueError(f"Expected `images` not to be empty. Received: images={images!r}")
    for title, image in images.items():
        if image.ndim != 2 or not image.size:
            expected = "Expected `images` to hold images of shape (height, width)"
            raise ValueError(f"{expected}. Received: images[{title!r}].shape={image.shape}")
    signed = [np.abs(image).ravel() for title, image in images.items() if title not in grey]
    limit = float(np.percentile(np.concatenate(signed), percentile)) or 1.0 if signed else 1.0
    axes = figure.subplots(1, len(images), squeeze=False)[0]
    for axis, (title, image) in zip(axes, images.items()):
        if title in grey:
            axis.imshow(image, cmap="gray")
        else:
            picture = axis.imshow(image, cmap=COLOR_MAP, vmin=-limit, vmax=limit)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title)
    if signed:
        figure.colorbar(picture, ax=axes, label=label, extend="both", shrink=0.75, aspect=25)
