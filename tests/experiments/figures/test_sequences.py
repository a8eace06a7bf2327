# SPDX-License-Identifier: Apache-2.0
"""Tests grids of frames, and GIFs by reading them back."""

import numpy as np
import pytest

from examples.experiments import figures
from keras_dynfilter import inspection

FRAMES = np.random.default_rng(2).integers(0, 256, (4, 5, 7), np.uint8)


def pictures(axes):
    return [[image.get_array() for image in axis.images] for axis in axes.ravel()]


class TestGrid:
    @pytest.fixture
    def figure(self):
        pytest.importorskip("matplotlib")
        return inspection.new_figure(5, 3)

    def test_frames_are_in_their_places(self, figure):
        color = np.random.default_rng(3).random((2, 5, 7, 3), np.float32)
        rows = {"grey": FRAMES, "color": color, "list": [None, FRAMES[0][..., None]]}
        axes = figures.sequence_grid(figure, rows, titles=["a", "b", "c", "d"])
        assert axes.shape == (3, 4)
        shown = pictures(axes)
        assert [len(images) for images in shown] == [1] * 4 + [1, 1, 0, 0] + [0, 1, 0, 0]
        for images, frame in zip(shown[:6] + shown[9:10], [*FRAMES, *color, FRAMES[0]]):
            np.testing.assert_array_equal(images[0], frame)
        assert [axis.get_title() for axis in axes[0]] == ["a", "b", "c", "d"]
        assert [axis.get_ylabel() for axis in axes[:, 0]] == ["grey", "color", "list"]
        figure.draw_without_rendering()

    def test_frames_of_all_rows_share_their_greys(self, figure):
        axes = figures.sequence_grid(figure, {"bytes": FRAMES, "floats": FRAMES / 512})
        assert [axis.images[0].get_clim() for axis in axes.ravel()] == [(0, 255)] * 4 + [(0, 1)] * 4
        axes = figures.sequence_grid(figure, {"floats": FRAMES / 512}, limits=(-1, 2))
        assert axes[0, 0].images[0].get_clim() == (-1, 2)

    def test_half_precision(self, figure):
        axes = figures.sequence_grid(figure, {"half": (FRAMES / 256).astype(np.float16)})
        np.testing.assert_array_equal(pictures(axes)[1][0], (FRAMES[1] / 256).astype(np.float16))
        figure.draw_without_rendering()

    def test_titles_of_a_row_and_groups(self, figure):
        titles = {"b": ["1", "2"]}
        axes = figures.sequence_grid(figure, {"a": FRAMES, "b": FRAMES[:2]}, titles, group=2)
        assert [axis.get_title() for axis in axes.ravel()] == [""] * 4 + ["1", "2", "", ""]
        figure.draw_without_rendering()
        left = [axis.get_position().x0 for axis in axes[0]]
        steps = np.diff(left)
        assert steps[0] == pytest.approx(steps[2]) and steps[1] > steps[0] + 1e-3

    @pytest.mark.parametrize(
        "rows, titles, message",
        [
            ({}, None, r"`rows` to hold frames\. Received: rows=\{\}"),
            ({"a": []}, None, "`rows` to hold frames"),
            ({"a": FRAMES[0]}, None, r"rows\['a'\]\[0\]` to be of shape .* Received: .*\.shape=\(7,\)"),
            ({"a": FRAMES[:, :0]}, None, r"\.shape=\(0, 7\)"),
            ({"a": np.zeros([1, 5, 7, 2])}, None, r"\.shape=\(5, 7, 2\)"),
            ({"a": FRAMES}, ["b"], r"`titles` to be 4 titles\. Received: titles=\['b'\]"),
            ({"a": FRAMES}, {"b": ["c"] * 4}, r"one title for every frame .* Received: titles\['b'\]"),
            ({"a": FRAMES}, {"a": ["c"]}, r"one title for every frame .* Received: titles\['a'\]=\['c'\]"),
        ],
    )
    def test_errors(self, rows, titles, message, figure):
        with pytest.raises(ValueError, match=message):
            figures.sequence_grid(figure, rows, titles)


class TestGif:
    @pytest.fixture(autouse=True)
    def reader(self):
        self.Image = pytest.importorskip("PIL.Image")

    def read(self, path, mode):
        """Reads the frames and for how many seconds each is shown."""
        with self.Image.open(path) as file:
            assert file.info["loop"] == 0
            frames, seconds = [], []
            for number in range(file.n_frames):
                file.seek(number)
                frames.append(np.asarray(file.convert(mode)))
                seconds.append(file.info["duration"] / 1000)
        return np.stack(frames), seconds

    def test_greys_come_back_exactly(self, tmp_path):
        figures.save_gif(tmp_path / "a.gif", FRAMES, fps=4)
        frames, seconds = self.read(tmp_path / "a.gif", "L")
        np.testing.assert_array_equal(frames, FRAMES)
        assert seconds == [0.25] * 4

    def test_floats_are_clipped_and_scaled(self, tmp_path):
        figures.save_gif(tmp_path / "a.gif", np.array([[[[-1.0], [0.5]]], [[[1.0], [7.0]]]]), fps=50, scale=3)
        frames, seconds = self.read(tmp_path / "a.gif", "L")
        expected = np.array([[[0, 128]], [[255, 255]]]).repeat(3, 1).repeat(3, 2)
        np.testing.assert_array_equal(frames, expected)
        assert seconds == [0.02] * 2

    def test_colors(self, tmp_path):
        colors = np.random.default_rng(4).integers(0, 256, (3, 6, 8, 3), np.uint8)
        figures.save_gif(tmp_path / "a.gif", colors)
        np.testing.assert_array_equal(self.read(tmp_path / "a.gif", "RGB")[0], colors)

    def test_equal_frames_keep_their_time(self, tmp_path):
        figures.save_gif(tmp_path / "a.gif", FRAMES[[0, 0, 0, 1]], fps=5)
        frames, seconds = self.read(tmp_path / "a.gif", "L")
        np.testing.assert_array_equal(frames, FRAMES[:2])
        assert seconds == pytest.approx([0.6, 0.2])

    @pytest.mark.parametrize(
        "frames, options, message",
        [
            (FRAMES, {"fps": 0}, r"`fps` to be a number above 0 and at most 50\. Received: fps=0"),
            (FRAMES, {"fps": 60}, "Received: fps=60"),
            (FRAMES, {"scale": 1.5}, r"`scale` to be an integer of at least 1\. Received: scale=1\.5"),
            ([], {}, r"`frames` to be at least one, all of one size\. Received: sizes \[\]"),
            ([FRAMES[0], FRAMES[0].T], {}, r"sizes \[\(5, 7\), \(7, 5\)\]"),
            (FRAMES[0], {}, r"frames\[0\]` to be of shape"),
            (FRAMES * np.nan, {}, "not finite"),
        ],
    )
    def test_errors(self, frames, options, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            figures.save_gif(tmp_path / "a.gif", frames, **options)
        assert not list(tmp_path.iterdir())
