# SPDX-License-Identifier: Apache-2.0
"""Draws sequences of frames as grids, and writes them as GIFs."""

import collections.abc
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_dynfilter.inspection.optional_packages import import_optional
from keras_dynfilter.ops.checks import integer, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

FASTEST = 50  # frames per second; browsers slow faster GIFs down
GAP = 0.12  # width of a gap between groups of columns, in columns


def as_image(value: np.ndarray, name: str) -> np.ndarray:
    """Returns `value` as an image `[height, width]` or `[height, width, 3]`. Raises an error if it is no image."""
    picture = np.asarray(value)
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    color = picture.ndim == 3 and picture.shape[-1] == 3
    if not (picture.ndim == 2 or color) or not picture.size:
        expected = f"Expected `{name}` to be of shape (height, width), (height, width, 1) or (height, width, 3)"
        raise ValueError(f"{expected}. Received: {name}.shape={picture.shape}")
    return picture


def sequence_grid(
    figure: "Figure | SubFigure",
    rows: dict[str, Any],
    titles: list[str] | dict[str, list[str]] | None = None,
    limits: tuple[float, float] | None = None,
    group: int | None = None,
) -> np.ndarray:
    """Draws one sequence per row and one frame per column.

    Args:
        figure: A matplotlib figure or subfigure.
        rows: Frames by row label: `[frames, height, width]`, optionally with a last axis of size 1 or 3, or a list of
            such frames, where None leaves a blank. Colours are uint8, or floats in [0, 1]. Rows may differ in length.
        titles: A title for every column, or titles of the frames by row label.
        limits: The values that are drawn black and white. None: (0, 255) for uint8 and (0, 1) for other dtypes, so that
            frames of a sequence can be compared.
        group: Number of columns after which there is a gap. None: there are no gaps.

    Returns:
        The axes, an array `[rows, columns]`.

    Raises:
        ValueError: There is no frame, a frame is not an image, or titles do not fit the frames.
    """
    rows = {
        name: [None if frame is None else as_image(frame, f"rows[{name!r}][{i}]") for i, frame in enumerate(frames)]
        for name, frames in rows.items()
    }
    columns = max((len(frames) for frames in rows.values()), default=0)
    if not columns:
        raise ValueError(f"Expected `rows` to hold frames. Received: rows={rows!r}")
    axes = _axes(figure, len(rows), columns, group or columns)
    for row, (name, frames) in zip(axes, rows.items()):
        for axis, frame in zip(row, frames + [None] * (columns - len(frames))):
            _show(axis, frame, limits)
        row[0].set_ylabel(name, rotation="horizontal", ha="right", va="center", labelpad=6)
    for row, texts in _titles(titles, rows, columns).items():
        for axis, text in zip(axes[list(rows).index(row)], texts):
            axis.set_title(text, pad=3, fontsize="medium")
    return axes


def _axes(figure, rows, columns, group):
    ratios, indices = [], []
    for column in range(columns):
        if column and column % group == 0:
            ratios.append(GAP)
        indices.append(len(ratios))
        ratios.append(1)
    grid = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
    return np.array([[figure.add_subplot(grid[row, index]) for index in indices] for row in range(rows)])


def _show(axis, frame, limits):
    axis.set(xticks=[], yticks=[])
    if frame is None:
        axis.spines[:].set_visible(False)
        axis.patch.set_visible(False)
        return
    low, high = limits or ((0, 255) if frame.dtype == np.uint8 else (0, 1))
    # matplotlib cannot draw float16 and bfloat16.
    frame = frame if frame.dtype == np.uint8 else frame.astype(np.float32)
    axis.imshow(frame, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.spines[:].set(linewidth=0.5, color="0.5")


def _titles(titles, rows, columns):
    """Returns titles by row label."""
    if titles is None:
        return {}
    if not isinstance(titles, collections.abc.Mapping):
        if len(titles) != columns:
            raise ValueError(f"Expected `titles` to be {columns} titles. Received: titles={titles!r}")
        return {next(iter(rows)): titles}
    for name, texts in titles.items():
        if name not in rows or len(texts) != len(rows[name]):
            expected = "Expected `titles` to hold one title for every frame of a row"
            raise ValueError(f"{expected}. Received: titles[{name!r}]={texts!r}")
    return titles


def save_gif(path: str | os.PathLike, frames: Any, fps: float = 5, scale: int = 1) -> None:
    """Writes frames as a GIF that repeats for ever.

    Equal consecutive frames are stored once, with the sum of their times. Grey values are stored exactly; each colour
    frame gets a palette of 256 colours.

    Args:
        path: The file.
        frames: `[frames, height, width]`, optionally with a last axis of size 1 or 3: uint8, or floats. Floats are
            clipped to the range from 0 (black) to 1.
        fps: Frames per second, at most 50. GIFs count time in hundredths of a second.
        scale: Positive integer: every pixel becomes a square of `scale` x `scale` pixels.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: An argument is not as described.
    """
    number(fps, "fps", above=0, at_most=FASTEST, expected=f"a number above 0 and at most {FASTEST}")
    if not integer(scale) or scale < 1:
        raise ValueError(f"Expected `scale` to be an integer of at least 1. Received: scale={scale!r}")
    pictures = [as_image(frame, f"frames[{i}]") for i, frame in enumerate(frames)]
    if len({picture.shape for picture in pictures}) != 1:
        shapes = sorted({picture.shape for picture in pictures})
        raise ValueError(f"Expected `frames` to be at least one, all of one size. Received: sizes {shapes}")
    Image = import_optional("PIL.Image", "Pillow", "save_gif")
    first, *others = [Image.fromarray(_bytes(picture).repeat(scale, 0).repeat(scale, 1)) for picture in pictures]
    first.save(path, format="GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def _bytes(picture):
    if picture.dtype == np.uint8:
        return picture
    picture = picture.astype(np.float32)
    if not np.isfinite(picture).all():
        raise ValueError("Expected `frames` to be uint8 or floats from 0 to 1. Received: values that are not finite")
    return np.rint(255 * picture.clip(0, 1)).astype(np.uint8)
