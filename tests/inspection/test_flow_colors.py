# SPDX-License-Identifier: Apache-2.0
"""`flow_to_color` follows its formulas, and the colour wheel shows its colours."""

import colorsys
import math
import sys

import numpy as np
import pytest

from keras_dynfilter import inspection

NAN = math.nan


def field(*vectors):
    return np.array(vectors, np.float64).reshape(1, -1, 2)


def test_hsv_colors_follow_the_formula():
    pytest.importorskip("matplotlib")
    vectors = np.random.default_rng(1).normal(size=(6, 7, 2))
    colors = inspection.flow_to_color(vectors)
    longest = np.hypot(*vectors.reshape(-1, 2).T).max()
    for (x, y), color in zip(vectors.reshape(-1, 2), colors.reshape(-1, 3)):
        hue = (math.atan2(y, x) + math.pi) / (2 * math.pi)
        expected = colorsys.hsv_to_rgb(hue, math.hypot(x, y) / longest, 1.0)
        assert color.tolist() == [round(255 * value) for value in expected]
    assert colors.dtype == np.uint8


@pytest.mark.parametrize(
    "style, colors, tolerance",  # the tolerance of imgviz is one step between its 55 hues
    [
        ("hsv", {(-1, 0): (255, 0, 0), (1, 0): (0, 255, 255), (0, 1): (128, 0, 255), (0, -1): (128, 255, 0)}, 1),
        ("middlebury", {(1, 0): (255, 0, 0), (0, 1): (255, 229, 0), (-1, 0): (0, 209, 255), (0, -1): (88, 0, 255)}, 24),
    ],
)
def test_colors_of_the_four_directions(style, colors, tolerance):
    pytest.importorskip("imgviz" if style == "middlebury" else "matplotlib")
    result = inspection.flow_to_color(3 * field(*colors), style)
    assert np.abs(result[0].astype(int) - list(colors.values())).max() <= tolerance, result


@pytest.mark.parametrize("style", ["hsv", "middlebury"])
class TestColors:
    @pytest.fixture(autouse=True)
    def packages(self):
        pytest.importorskip("matplotlib")
        pytest.importorskip("imgviz")

    def test_no_motion_is_white(self, style):
        assert (inspection.flow_to_color(np.zeros([3, 4, 2]), style) == 255).all()

    def test_every_field_has_its_own_maximum_unless_one_is_given(self, style):
        flow = np.stack([field((1, 0), (0, 2)), field((3, 0), (0, 6))])
        own = inspection.flow_to_color(flow, style)
        assert (own[0] == own[1]).all() and (own[0] == inspection.flow_to_color(flow[0], style)).all()
        common = inspection.flow_to_color(flow, style, max_magnitude=6)
        assert (common[1] == own[1]).all()
        assert (common[0] > own[0]).any()

    def test_longer_vectors_are_drawn_like_the_longest(self, style):
        directions = field(*[(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 6, 50)])
        longer = inspection.flow_to_color(7.3 * directions, style, max_magnitude=1.1)
        # A tolerance of one step of 255, because the two fields are rounded differently.
        difference = longer.astype(int) - inspection.flow_to_color(directions, style)
        assert np.abs(difference).max() <= 1

    def test_vectors_that_are_not_finite_are_black_and_do_not_count(self, style):
        flow = field((NAN, 0), (np.inf, 1), (2, 0), (0, 1))
        colors = inspection.flow_to_color(flow, style)
        assert (colors[0, :2] == 0).all()
        assert (colors[0, 2:] == inspection.flow_to_color(flow[:, 2:], style)).all()


def test_middlebury_needs_imgviz(monkeypatch):
    monkeypatch.setitem(sys.modules, "imgviz", None)
    with pytest.raises(ImportError, match=r"needs imgviz\. .* pip install 'keras_dynfilter\[examples\]'"):
        inspection.flow_to_color(field((1, 0)), "middlebury")


@pytest.mark.legacy
@pytest.mark.parametrize(
    "flow, options, message",
    [
        (np.zeros([4, 2]), {}, r"`flow` to be of shape .* Received: flow\.shape=\(4, 2\)"),
        (np.zeros([4, 4, 3]), {}, r"Received: flow\.shape=\(4, 4, 3\)"),
        (np.zeros([0, 4, 2]), {}, r"not empty\. Received: flow\.shape=\(0, 4, 2\)"),
        (field((1, 0)), {"style": "jet"}, r"`style` to be one of 'hsv', 'middlebury'\. Received: style='jet'"),
        (field((1, 0)), {"max_magnitude": 0}, r"`max_magnitude` to be a number above zero\. .*=0"),
        (field((1, 0)), {"max_magnitude": NAN}, r"`max_magnitude` .*=nan"),
    ],
)
def test_flow_to_color_errors(flow, options, message):
    with pytest.raises(ValueError, match=message):
        inspection.flow_to_color(flow, **options)


def test_color_wheel():
    pytest.importorskip("matplotlib")
    figure = inspection.new_figure(2, 2)
    axis = figure.subplots()
    inspection.show_color_wheel(axis, max_magnitude=4)
    wheel = axis.images[0].get_array()
    assert wheel[128, 128].tolist() == [255] * 4  # no motion
    assert wheel[128, 0].tolist() == [255, 0, 0, 255]  # to the left, as in flow_to_color
    assert wheel[-1, 128].tolist() == [128, 0, 255, 255]  # down
    assert wheel[0, 0, 3] == 0  # outside the wheel
    assert axis.get_xlabel() == "4 px"
    figure.draw_without_rendering()
