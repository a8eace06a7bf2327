# SPDX-License-Identifier: Apache-2.0
"""Draws digits with fonts and distorts them at random: a stand-in for MNIST without a download.

The fonts come with the matplotlib wheel, so that every machine draws the same digits.
"""

import math
import pathlib

import numpy as np

from keras_dynfilter.ops.checks import positive

SIZE = 28  # rows and columns of a digit, as in MNIST
HEIGHT = 18  # rows of the glyph in a digit
SCALE = 4  # glyphs are drawn larger by this factor, then sampled
CANVAS = SIZE * SCALE
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "cmr10",
    "cmss10",
    "cmtt10",
)
KNOTS = 4  # rows and columns of the grid that bends a digit


def render_digits(count: int, seed: int = 0) -> np.ndarray:
    """Draws digits 0 to 9 in turn, with random font, size, slant, rotation, bends and thickness of strokes.

    Args:
        count: Positive integer.
        seed: Integer seed.

    Returns:
        `[count, 28, 28]`, uint8, white on black.

    Raises:
        ValueError: `count` is not positive.
        ImportError: matplotlib or Pillow is not installed.
    """
    count = positive(count, "count")
    glyphs = _glyphs().reshape(len(FONTS) * 10, CANVAS, CANVAS)
    rng = np.random.default_rng(seed)
    chosen = 10 * rng.integers(0, len(FONTS), count) + np.arange(count) % 10
    parts = [_distorted(glyphs, chosen[first : first + 1000], rng) for first in range(0, count, 1000)]
    return np.concatenate(parts)


def _glyphs():
    """Draws the ten digits in every font, blurred and centred: `[fonts, 10, rows, columns]`, float32 in `[0, 1]`."""
    try:
        import matplotlib
        from PIL import Image, ImageDraw, ImageFilter, ImageFont
    except ImportError as error:
        raise ImportError(
            "Drawn digits need matplotlib. Install it with the extra `examples`: "
            "pip install 'keras_dynfilter[examples]'"
        ) from error
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    glyphs = np.empty([len(FONTS), 10, CANVAS, CANVAS], np.float32)
    for name, row in zip(FONTS, glyphs):
        file = str(folder / f"{name}.ttf")
        _, top, _, bottom = ImageFont.truetype(file, 200).getbbox("0")
        font = ImageFont.truetype(file, round(200 * HEIGHT * SCALE / (bottom - top)))
        for digit in range(10):
            image = Image.new("L", (CANVAS, CANVAS))
            ImageDraw.Draw(image).text((CANVAS // 2, CANVAS // 2), str(digit), fill=255, font=font, anchor="mm")
            glyph = np.asarray(image.filter(ImageFilter.GaussianBlur(0.9 * SCALE)), np.float32) / 255
            ink = [np.flatnonzero(glyph.max(axis=axis) > 0.3) for axis in (1, 0)]
            row[digit] = np.roll(glyph, [(CANVAS - i[0] - i[-1]) // 2 for i in ink], axis=(0, 1))
    return glyphs


def _distorted(glyphs, chosen, rng):
    """Samples the glyphs `chosen`, `[count]`, at positions that are rotated, slanted, stretched and bent; uint8."""
    count = len(chosen)
    rotation, slant = rng.normal(0, math.radians(7), count), rng.normal(0.05, 0.15, count)
    tall, wide = rng.uniform(0.95, 1.15, count), rng.uniform(0.85, 1.3, count)
    cos, sin = np.cos(rotation), np.sin(rotation)
    matrix = np.stack([np.stack([cos * tall, -sin * wide], -1), np.stack([sin * tall, cos * wide], -1)], 1)
    matrix[:, 1] += slant[:, None] * matrix[:, 0]
    grid = np.stack(np.mgrid[:SIZE, :SIZE], axis=-1) - (SIZE - 1) / 2
    positions = np.einsum("nij,yxj->nyxi", matrix, grid) + _bends(count, rng)
    positions = (positions * SCALE + (CANVAS - 1) / 2).clip(0, CANVAS - 1.001)
    corner = positions.astype(np.int64)
    (fy, fx), (y, x) = np.moveaxis(positions - corner, -1, 0), np.moveaxis(corner, -1, 0)
    n = chosen[:, None, None]
    top = glyphs[n, y, x] * (1 - fx) + glyphs[n, y, x + 1] * fx
    bottom = glyphs[n, y + 1, x] * (1 - fx) + glyphs[n, y + 1, x + 1] * fx
    values = top * (1 - fy) + bottom * fy
    threshold = rng.uniform(0.17, 0.45, count)[:, None, None]  # a lower threshold makes strokes thicker
    values = ((values - threshold) / 0.25 + 0.5).clip(0, 1)
    return np.round(values * 255).astype(np.uint8)


def _bends(count, rng):
    """Draws smooth displacements `[count, SIZE, SIZE, 2]` in pixels: a coarse random grid, blended by cosines."""
    knots = rng.normal(0, 1.1, [count, KNOTS, KNOTS, 2])
    position = np.linspace(0, KNOTS - 1, SIZE)
    distance = np.abs(position[:, None] - np.arange(KNOTS)).clip(0, 1)
    weights = (1 + np.cos(np.pi * distance)) / 2
    return np.einsum("yk,xl,nklc->nyxc", weights, weights, knots, optimize=True)
