# SPDX-License-Identifier: Apache-2.0
"""Generates videos and stereo pairs of moving textures, whose true flow and disparity are known for every pixel.

A scene is a background and one to three shapes in front of it. Each of these layers has its own texture: noise with the
spectrum of photographs but without the finest detail, so that interpolation between pixels is meaningful. A texture is
moved in the frequency domain, which is exact for any fraction of a pixel. Every pixel belongs to one layer.
"""

import dataclasses
import math

import numpy as np

from keras_dynfilter.ops.checks import integer, number, positive

FINEST = 0.18  # cycles per pixel at which detail is damped to 1/e
SMALLEST, LARGEST = 0.12, 0.28  # half extents of shapes, in frame sizes
HAZE, FAINTEST = 0.7, 0.15  # grey value of the haze at the far end of a stereo scene, and the contrast left there


def synthetic_video(
    count: int, frames: int = 6, size: int = 64, max_motion: float = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generates videos of textured layers that move at constant velocity, and their true backward flow.

    Video `i` does not depend on `count`.

    Args:
        count: Positive integer, videos.
        frames: Integer of at least 2.
        size: Integer of at least 16, rows and columns of a frame.
        max_motion: Largest motion per frame and axis in pixels, less than `size`. Velocities are uniform from
            `-max_motion` to `max_motion`.
        seed: Non-negative integer.

    Returns:
        A tuple `(videos, flow, mask)`:
        `videos`, `[count, frames, size, size, 1]`, float32 in `[0, 1]`;
        `flow`, `[count, frames - 1, size, size, 2]`, float32, (x, y) in pixels: where a pixel of frame `t + 1` comes
        from in frame `t`, `later[y, x] = earlier[y + flow_y, x + flow_x]`;
        `mask`, `[count, frames - 1, size, size]`, boolean: whether that place is visible in frame `t`.

    Raises:
        ValueError: An argument is not as described.
    """
    count, frames, size = _check(count, size, max_motion, "max_motion", seed), positive(frames, "frames"), int(size)
    if frames < 2:
        raise ValueError(f"Expected `frames` to be at least 2. Received: frames={frames}")
    videos = np.empty([count, frames, size, size, 1], np.float32)
    flow = np.empty([count, frames - 1, size, size, 2], np.float32)
    mask = np.empty([count, frames - 1, size, size], bool)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        scene = Scene.random(rng, size)
        velocities = rng.uniform(-max_motion, max_motion, [len(scene.textures), 2])
        videos[index, ..., 0], flow[index], mask[index] = scene.video(velocities, frames)
    return videos, flow, mask


def synthetic_stereo(
    count: int, size: int = 64, max_disparity: float = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Generates stereo pairs of textured layers: a ground that comes nearer row by row, and shapes in front of it.

    Distant layers fade into haze, linearly with disparity. As in photographs, a single view must show how far away
    things are, because a network that predicts the other view sees nothing else.

    Pair `i` does not depend on `count`.

    Args:
        count: Positive integer, pairs.
        size: Integer of at least 16, rows and columns of an image.
        max_disparity: Largest disparity in pixels, less than `size`. Disparities are from 0 to `max_disparity`.
        seed: Non-negative integer.

    Returns:
        A tuple `(left, right, flow_x, mask)`:
        `left` and `right`, `[count, size, size, 1]`, float32 in `[0, 1]`;
        `flow_x`, `[count, size, size]`, float32, the disparity: where a pixel of the right image is in the left image,
        `right[y, x] = left[y, x + flow_x]`;
        `mask`, `[count, size, size]`, boolean: whether that place is visible in the left image.

    Raises:
        ValueError: An argument is not as described.
    """
    count, size = _check(count, size, max_disparity, "max_disparity", seed), int(size)
    left, right = (np.empty([count, size, size, 1], np.float32) for _ in range(2))
    flow = np.empty([count, size, size], np.float32)
    mask = np.empty([count, size, size], bool)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        scene = Scene.random(rng, size)
        far, near = np.sort(rng.uniform(0, max_disparity / 2, 2))
        ground = np.linspace(far, near, size)
        shapes = np.sort(rng.uniform(near, max_disparity, len(scene.textures) - 1))  # nearer shapes cover farther ones
        disparities = np.stack([ground, *(np.full(size, shape) for shape in shapes)])
        contrasts = FAINTEST + (1 - FAINTEST) * disparities / max(max_disparity, 1e-6)
        left[index, ..., 0], right[index, ..., 0], flow[index], mask[index] = scene.stereo(disparities, contrasts)
    return left, right, flow, mask


@dataclasses.dataclass
class Scene:
    """A background and shapes in front of it, from far to near.

    Attributes:
        textures: `[layers, period, period]`, periodic, in `[0, 1]`. The period is 1.5 frames.
        shapes: `[layers - 1, 6]`: centre x and y, half extents, angle, exponent (2 is an ellipse; larger exponents come
            close to a rectangle).
        size: Rows and columns of a frame.
    """

    textures: np.ndarray
    shapes: np.ndarray
    size: int

    @classmethod
    def random(cls, rng: np.random.Generator, size: int) -> "Scene":
        """Draws a scene of one to three shapes."""
        count = rng.integers(1, 4)
        shapes = np.concatenate(
            [
                rng.uniform(0.15 * size, 0.85 * size, [count, 2]),
                rng.uniform(SMALLEST * size, LARGEST * size, [count, 2]),
                rng.uniform(0, math.pi, [count, 1]),
                rng.choice([2.0, 4.0, 8.0], [count, 1]),
            ],
            axis=1,
        )
        return cls(np.stack([_texture(rng, size * 3 // 2) for _ in range(count + 1)]), shapes, size)

    def video(self, velocities: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Renders frames `[frames, size, size]`, backward flow and its mask.

        Args:
            velocities: `[layers, 2]` (x, y), pixels per frame. Halfway through the video, the shapes are at the centres
                that the scene gives.
            frames: Number of frames.
        """
        times = np.arange(frames)
        offsets = velocities[:, None] * times[:, None]  # [layers, frames, 2]
        period = self.textures.shape[1]
        x, y = np.fft.rfftfreq(period), np.fft.fftfreq(period)[:, None]
        phases = np.exp(-2j * np.pi * (x * offsets[..., 0, None, None] + y * offsets[..., 1, None, None]))
        images = np.fft.irfft2(np.fft.rfft2(self.textures)[:, None] * phases, self.textures.shape[1:])
        owner = self._owner(offsets[1:] - velocities[1:, None] * (frames - 1) / 2)
        flow = -velocities[owner[1:]]
        mask = _visible(owner[:-1], owner[1:], flow[..., 0], flow[..., 1])
        return self._pick_owner(images[..., : self.size, : self.size], owner), flow, mask

    def stereo(
        self, disparities: np.ndarray, contrasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Renders left and right image, disparity and its mask, `[size, size]` each.

        Args:
            disparities: `[layers, rows]`, pixels.
            contrasts: `[layers, rows]`, in `[0, 1]`: the share of the texture; the rest is haze.
        """
        textures = HAZE + contrasts[..., None] * (self.textures[:, : self.size] - HAZE)
        phases = np.exp(2j * np.pi * np.fft.rfftfreq(textures.shape[2]) * disparities[..., None])
        moved = np.fft.irfft(np.fft.rfft(textures) * phases, textures.shape[2])
        images = np.stack([textures, moved], axis=1)[..., : self.size]
        offsets = np.zeros([len(self.shapes), 2, 2])
        offsets[:, 1, 0] = -disparities[1:, 0]
        owner = self._owner(offsets)
        flow = disparities[owner[1], np.arange(self.size)[:, None]]
        mask = _visible(owner[:1], owner[1:], flow[None], np.zeros_like(flow)[None])[0]
        return *self._pick_owner(images, owner), flow, mask

    def _owner(self, offsets):
        """Returns the index of the layer that each pixel belongs to, `[frames, size, size]`.

        Args:
            offsets: Motion (x, y) of each shape from its centre, `[shapes, frames, 2]`.
        """
        y, x = np.mgrid[: self.size, : self.size]
        owner = np.zeros([offsets.shape[1], self.size, self.size], np.int64)
        for layer, (shape, offset) in enumerate(zip(self.shapes, offsets), start=1):
            dx = x - shape[0] - offset[:, 0, None, None]
            dy = y - shape[1] - offset[:, 1, None, None]
            cos, sin = math.cos(shape[4]), math.sin(shape[4])
            u, v = (cos * dx + sin * dy) / shape[2], (cos * dy - sin * dx) / shape[3]
            owner[np.abs(u) ** shape[5] + np.abs(v) ** shape[5] <= 1] = layer
        return owner

    @staticmethod
    def _pick_owner(images, owner):
        """Picks from `[layers, frames, size, size]` the layer that each pixel belongs to."""
        return np.clip(np.take_along_axis(images, owner[None], axis=0)[0], 0, 1)


def _visible(earlier, later, flow_x, flow_y):
    """Returns whether the four pixels around the source of each pixel are inside the frame and in its layer."""
    frames, size = later.shape[0], later.shape[1]
    time, y, x = np.ogrid[:frames, :size, :size]
    visible = np.ones(later.shape, bool)
    for round_y in (np.floor, np.ceil):
        for round_x in (np.floor, np.ceil):
            row, column = round_y(y + flow_y).astype(np.int64), round_x(x + flow_x).astype(np.int64)
            visible &= (row >= 0) & (row < size) & (column >= 0) & (column < size)
            visible &= earlier[time, row.clip(0, size - 1), column.clip(0, size - 1)] == later
    return visible


def _texture(rng, period):
    """Draws periodic noise `[period, period]` in `[0, 1]` with a random range of values and a random spectral slope."""
    frequency = np.hypot(np.fft.rfftfreq(period), np.fft.fftfreq(period)[:, None])
    spectrum = (frequency + 1 / period) ** -rng.uniform(0.7, 1.3) * np.exp(-((frequency / FINEST) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal([period, period])) * spectrum, [period, period])
    noise = (noise - noise.min()) / np.ptp(noise)
    low, high = rng.uniform(0.03, 0.35), rng.uniform(0.65, 0.97)
    return low + (high - low) * noise


def _check(count, size, largest, name, seed):
    count = positive(count, "count")
    if not integer(size) or size < 16:
        raise ValueError(f"Expected `size` to be an integer of at least 16. Received: size={size!r}")
    number(largest, name, at_least=0, below=size, expected=f"a number from 0 to less than {size}")
    if not integer(seed) or seed < 0:
        raise ValueError(f"Expected `seed` to be a non-negative integer. Received: seed={seed!r}")
    return count
