# SPDX-License-Identifier: Apache-2.0
"""Flow that is read off filters: its values, its colours, its error."""

import colorsys
import math
import sys

import numpy as np
import pytest

from keras_dynfilter import inspection

NAN = math.nan


def one_hot(kernel_size, u, v):
    filters = np.zeros(kernel_size)
    filters[u, v] = 1
    return filters.ravel()


@pytest.mark.legacy
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 13), (5, 2), (4, 4)])
def test_a_one_hot_filter_gives_its_offset(kernel_size):
    before = [(extent - 1) // 2 for extent in kernel_size]
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            flow = inspection.filters_to_flow(one_hot(kernel_size, u, v), kernel_size)
            assert flow.tolist() == [v - before[1], u - before[0]]


@pytest.mark.legacy
def test_flow_says_where_the_layer_takes_its_values_from():
    """Also for windows of even size, which only `dynamic_conv2d` has."""
    from keras_dynfilter import ops

    image = np.random.default_rng(0).normal(size=(1, 9, 9, 1)).astype(np.float32)
    for kernel_size in ((5, 3), (4, 2)):
        filters = one_hot(kernel_size, 0, 1).astype(np.float32)
        x, y = inspection.filters_to_flow(filters, kernel_size).astype(int)
        result = ops.dynamic_conv2d(image, filters.reshape(1, *kernel_size, 1, 1), padding="same").numpy()
        assert result[0, 4, 4, 0] == image[0, 4 + y, 4 + x, 0]


@pytest.mark.legacy
def test_uniform_and_mixed_filters():
    assert inspection.filters_to_flow(np.full([2, 5, 81], 1 / 81), 9) == pytest.approx(np.zeros([2, 5, 2]), abs=1e-12)
    filters = 0.75 * one_hot((3, 5), 0, 4) + 0.25 * one_hot((3, 5), 2, 3)
    assert inspection.filters_to_flow(filters, (3, 5)) == pytest.approx([0.75 * 2 + 0.25 * 1, -0.75 + 0.25])


@pytest.mark.legacy
def test_flow_dtypes():
    filters = one_hot((3, 3), 2, 2)
    for dtype, result in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        flow = inspection.filters_to_flow(filters.astype(dtype), 3)
        assert flow.dtype == result and flow.tolist() == [1, 1]


@pytest.mark.legacy
@pytest.mark.parametrize(
    "filters, kernel_size, message",
    [
        (np.ones([4, 10]) / 10, 3, r"`filters` to have 9 taps .* Received: filters\.shape=\(4, 10\)"),
        (np.float64(1), 1, r"`filters` to have 1 taps .* Received: filters\.shape=\(\)"),
        (np.ones([2, 9]), 3, r"`filters` to sum up to 1 .* Received: .* 8 away"),
        (np.full([2, 9], NAN), 3, r"`filters` to sum up to 1 .* Received: .* nan away"),
        (np.ones([9]) / 9, 0, "`kernel_size`"),
    ],
)
def test_filters_to_flow_errors(filters, kernel_size, message):
    with pytest.raises(ValueError, match=message):
        inspection.filters_to_flow(filters, kernel_size)


def field(*vectors):
    return np.array(vectors, np.float64).reshape(1, -1, 2)


def test_hsv_colors_are_those_of_the_formula():
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
    "style, colors, tolerance",  # of imgviz: a hue, of 55
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

    def test_every_field_of_a_batch_has_its_own_maximum_unless_one_is_given(self, style):
        flow = np.stack([field((1, 0), (0, 2)), field((3, 0), (0, 6))])
        own = inspection.flow_to_color(flow, style)
        assert (own[0] == own[1]).all() and (own[0] == inspection.flow_to_color(flow[0], style)).all()
        common = inspection.flow_to_color(flow, style, max_magnitude=6)
        assert (common[1] == own[1]).all()
        assert (common[0] > own[0]).any()

    def test_longer_vectors_are_drawn_like_the_longest(self, style):
        directions = field(*[(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 6, 50)])
        longer = inspection.flow_to_color(7.3 * directions, style, max_magnitude=1.1)
        # One step of the 255: the two fields round differently.
        difference = longer.astype(int) - inspection.flow_to_color(directions, style)
        assert np.abs(difference).max() <= 1

    def test_what_is_not_finite_is_black_and_does_not_count(self, style):
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


@pytest.mark.legacy
def test_end_point_error():
    true = field((0, 0), (1, 1), (NAN, NAN))
    flow = field((3, 4), (1, 2), (0, 0))
    known = np.array([[1, 1, 0]])
    assert inspection.end_point_error(flow, true, known) == pytest.approx((5 + 1) / 2)
    assert inspection.end_point_error(flow[:, :2], true[:, :2]) == pytest.approx(3)
    assert inspection.end_point_error([[2.0], [-1.0]], [[0.0], [0.0]]) == pytest.approx(1.5)
    assert math.isnan(inspection.end_point_error(flow, true))


@pytest.mark.legacy
@pytest.mark.parametrize(
    "shapes, mask, message",
    [
        (((4, 2), (3, 2)), None, r"flow\.shape=\(4, 2\), true_flow\.shape=\(3, 2\)"),
        (((4, 3), (4, 3)), None, r"of one shape \(\.\.\., 2\) or \(\.\.\., 1\)"),
        (((4, 2), (4, 2)), np.ones(3), r"`mask` to be of shape \(4,\)\. Received: mask\.shape=\(3,\)"),
        (((4, 2), (4, 2)), np.zeros(4), "at least one vector"),
        (((0, 2), (0, 2)), None, "at least one vector"),
    ],
)
def test_end_point_error_errors(shapes, mask, message):
    flow, true_flow = map(np.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        inspection.end_point_error(flow, true_flow, mask)


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
