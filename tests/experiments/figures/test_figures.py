# SPDX-License-Identifier: Apache-2.0
"""Tests the contents of the panels of each figure, that nothing overlaps, and the errors."""

import itertools

import numpy as np
import pytest

from examples.experiments import figures
from keras_dynfilter import inspection

FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg

RANDOM = np.random.default_rng(5)


def frames(examples, steps, height=8, width=8):
    return RANDOM.random((examples, steps, height, width, 1), np.float32)


def filters(*shape):
    weights = np.exp(RANDOM.normal(size=shape)).astype(np.float32)
    return weights / weights.sum(axis=-1, keepdims=True)


def shown(figure):
    """Returns the images of all axes that hold an image."""
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def check_layout(figure):
    """Draws the figure. Checks that every axis with its texts is inside the figure and overlaps no other axis."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes if axis.get_visible()]
    titles = [part._suptitle for part in figure.subfigs if part._suptitle]
    boxes += [title.get_window_extent(renderer) for title in titles]
    boxes = [box.padded(-1) for box in boxes if box is not None and box.width > 4 and box.height > 4]
    assert len(boxes) > 1
    for box in boxes:
        assert min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, box
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), f"{one}\n{other}"


def panel_sizes(figure):
    return {tuple(np.round(axis.get_window_extent().size).astype(int)) for axis in figure.axes if axis.images}


@pytest.mark.parametrize("steps, baseline, count", [(10, True, 2), (3, False, 1), (2, True, 1)])
def test_moving_mnist(steps, baseline, count):
    inputs, targets, predictions, baseline_frames = (frames(count, n) for n in (4, steps, steps, steps))
    figure = figures.moving_mnist_figure(inputs, targets, predictions, baseline_frames if baseline else None)
    sequences = [inputs, targets, predictions, baseline_frames][: 4 if baseline else 3]
    expected = [frame[..., 0] for example in range(count) for sequence in sequences for frame in sequence[example]]
    np.testing.assert_array_equal(shown(figure), expected)
    check_layout(figure)
    assert len(panel_sizes(figure)) == 1


def test_moving_mnist_says_which_frame_is_which():
    figure = figures.moving_mnist_figure(frames(1, 3), frames(1, 2), frames(1, 2))
    assert [axis.get_title() for axis in figure.axes] == ["$t-2$", "$t-1$", "$t$", "$t+1$", "$t+2$"] + [""] * 4
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["input", "truth", "prediction"]


def test_out_of_domain():
    groups = {
        "1 digit": dict(inputs=frames(1, 3), targets=frames(1, 3), predictions=frames(1, 3)),
        "3 digits": dict(inputs=frames(2, 3), targets=frames(2, 3), predictions=frames(2, 3), baseline=frames(2, 3)),
    }
    figure = figures.out_of_domain_figure(groups)
    assert len(shown(figure)) == 9 + 24
    assert [part.get_suptitle() for part in figure.subfigs] == ["1 digit", "", "3 digits", "", ""]
    check_layout(figure)


@pytest.mark.parametrize("past, steps, full, style", [(3, 3, False, "hsv"), (2, 3, True, "middlebury")])
def test_highway(past, steps, full, style):
    if style == "middlebury":
        pytest.importorskip("imgviz")
    inputs, targets, predictions, baseline_frames = (frames(2, n) for n in (past, steps, steps, steps))
    flow, true_flow = RANDOM.normal(size=(2, 2, steps, 8, 8, 2))
    true_flow[:, :, :2] = np.nan
    more = dict(baseline=baseline_frames, true_flow=true_flow, max_magnitude=9.0) if full else {}
    figure = figures.highway_figure(inputs, targets, predictions, flow, style=style, **more)
    longest = 9.0 if full else np.hypot(flow[..., 0], flow[..., 1]).max()
    rows = [inputs[..., 0], targets[..., 0], predictions[..., 0]] + [baseline_frames[..., 0]] * full
    rows += [inspection.flow_to_color(vectors, style, longest) for vectors in [flow, true_flow][: 1 + full]]
    *panels, wheel = shown(figure)
    expected = [frame for row in rows for example in row for frame in example]
    assert len(panels) == len(expected)
    for panel, frame in zip(panels, expected):
        np.testing.assert_array_equal(panel, frame)
    assert wheel.shape[-1] == 4
    assert figure.axes[-1].get_xlabel() == f"{longest:.3g} px"
    check_layout(figure)


def test_highway_without_motion():
    figure = figures.highway_figure(frames(1, 2), frames(1, 1), frames(1, 1), np.zeros([1, 1, 8, 8, 2]))
    assert (shown(figure)[-2] == 255).all()
    check_layout(figure)


@pytest.mark.parametrize("examples, full", [(3, False), (1, True)])
def test_stereo(examples, full):
    left, right, predictions, baseline_frames = frames(4, examples)
    disparity, true_disparity = RANDOM.normal(size=(2, examples, 8, 8))
    true_disparity[:, 0] = np.nan
    more = dict(baseline=baseline_frames, true_disparity=true_disparity) if full else {}
    figure = figures.stereo_figure(left, right, predictions, disparity, **more)
    views = [left, right, predictions] + [baseline_frames] * full
    expected = []
    for example in range(examples):
        expected += [view[example, ..., 0] for view in views] + [disparity[example]]
        expected += [true_disparity[example]] * full
    panels = shown(figure)
    assert len(panels) == len(expected)
    for panel, image in zip(panels, expected):
        np.testing.assert_allclose(np.ma.filled(panel, np.nan), image, rtol=1e-6)
    *axes, bar = figure.axes
    known = np.concatenate([disparity.ravel(), true_disparity[:, 1:].ravel() if full else []])
    assert bar.get_ylim() == pytest.approx((known.min(), known.max()))
    assert bar.get_ylabel() == "disparity (pixels)"
    for row in np.reshape(axes, [examples, -1]):
        assert len({axis.images[0].get_clim() for axis in row[: len(views)]}) == 1
    check_layout(figure)
    assert len(panel_sizes(figure)) == 1


def test_stereo_limits():
    left = frames(1, 1)[0]
    figure = figures.stereo_figure(left, left, left, np.full([1, 8, 8], np.nan))
    assert figure.axes[3].images[0].get_clim() == (0, 1)
    figure = figures.stereo_figure(left, left, left, np.zeros([1, 8, 8]), limits=(-6, 6))
    assert figure.axes[-1].get_ylim() == (-6, 6)


@pytest.mark.parametrize("kernel_size, positions", [((5, 5), None), ((1, 13), None), ((7, 1), [(0, 0), (15, 19)])])
def test_filters(kernel_size, positions):
    image, generated = frames(1, 1, 16, 20)[0, 0], filters(16, 20, kernel_size[0] * kernel_size[1])
    figure = figures.filters_figure(image, generated, kernel_size, positions, columns=3)
    positions = positions or [(y, x) for y in (2, 8, 13) for x in (3, 10, 16)]
    windows = figure.axes[0].patches
    assert len(windows) == len(positions)
    for window, (y, x) in zip(windows, positions):
        assert window.get_x() + window.get_width() / 2 == x and window.get_y() + window.get_height() / 2 == y
    for number, (axis, (y, x)) in enumerate(zip(figure.axes[1:], positions), 1):
        weights = generated[y, x]
        assert axis.get_title() == f"{number}: {weights.max():.2f}"
        if 1 in kernel_size:
            drawn = [bar.get_height() for bar in axis.patches]
        else:
            drawn = axis.images[0].get_array().ravel()
        np.testing.assert_allclose(drawn, weights)
    check_layout(figure)


def test_overview_shows_every_filter_in_its_place():
    generated = np.zeros([6, 5, 9], np.float32)
    for y, x in np.ndindex(6, 5):
        generated[y, x, (y + 2 * x) % 9] = 1
    figure = figures.filters_figure(frames(1, 1, 6, 5)[0, 0], generated, 3)
    overview = figure.axes[-1].images[0].get_array().filled(np.nan)
    assert overview.shape == (6 * 4 - 1, 5 * 4 - 1)
    assert np.isnan(overview[3::4]).all() and np.isnan(overview[:, 3::4]).all()
    for y, x in np.ndindex(6, 5):
        np.testing.assert_array_equal(overview[4 * y : 4 * y + 3, 4 * x : 4 * x + 3].ravel(), generated[y, x])


CLIP = frames(2, 3)
STILL = CLIP[:, 0]
IMAGE, FILTERS = STILL[0], filters(8, 8, 9)
ERRORS = {
    "no example axis": (figures.moving_mnist_figure, (CLIP[0],) * 3, r"`inputs` to have 5 axes, .*\(3, 8, 8, 1\)"),
    "no example": (figures.moving_mnist_figure, (CLIP[:0],) * 3, "`inputs` .* not to be empty"),
    "channels": (figures.moving_mnist_figure, (CLIP.repeat(2, -1),) * 3, r"last one of size 1.*\(2, 3, 8, 8, 2\)"),
    "sizes": (
        figures.moving_mnist_figure,
        (CLIP[:, :, :4], CLIP, CLIP),
        r"`inputs` and `targets` .*\(2, 3, 4, 8, 1\)",
    ),
    "steps": (figures.moving_mnist_figure, (CLIP, CLIP, CLIP[:, :2]), r"`predictions` .*\(2, 2, 8, 8, 1\)"),
    "baseline": (figures.moving_mnist_figure, (CLIP, CLIP, CLIP, CLIP[:1]), r"`baseline` .*\(1, 3, 8, 8, 1\)"),
    "no groups": (figures.out_of_domain_figure, ({},), r"`groups` not to be empty\. Received: groups=\{\}"),
    "flow": (figures.highway_figure, (CLIP,) * 4, r"`flow` to be of shape \(2, 3, 8, 8, 2\)\. .*\(2, 3, 8, 8, 1\)"),
    "left": (figures.stereo_figure, (IMAGE,) * 4, r"`left` to have 4 axes"),
    "right": (figures.stereo_figure, (STILL, STILL[:1], STILL, STILL[..., 0]), r"`right` to be of shape"),
    "disparity": (figures.stereo_figure, (STILL,) * 4, r"`disparity` to be of shape \(2, 8, 8\)"),
    "taps": (figures.filters_figure, (IMAGE, FILTERS, 5), r"`filters` to be of shape \(8, 8, 25\)"),
    "color": (
        figures.filters_figure,
        (IMAGE.repeat(3, -1), FILTERS, 3),
        r"`image` .* Received: image\.shape=\(8, 8, 3\)",
    ),
    "position": (figures.filters_figure, (IMAGE, FILTERS, 3, [(0, 8)]), r"`positions` .*\(8, 8\)\. .*\[\[0, 8\]\]"),
    "before": (figures.filters_figure, (IMAGE, FILTERS, 3, [(-1, 0)]), r"`positions` .* Received: .*\[\[-1, 0\]\]"),
    "no position": (figures.filters_figure, (IMAGE, FILTERS, 3, []), r"`positions` .* Received: positions=\[\]"),
    "no softmax": (figures.filters_figure, (IMAGE, 2 * FILTERS, 3), "`filters` to sum up to 1"),
}


@pytest.mark.parametrize("make, arguments, message", ERRORS.values(), ids=ERRORS)
def test_errors(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)


def test_no_display_is_needed(python, tmp_path):
    code = f"""
import numpy as np
from examples.experiments import figures
frames = np.zeros([1, 2, 8, 8, 1])
figures.moving_mnist_figure(frames, frames, frames).savefig({str(tmp_path / "figure.png")!r})
"""
    done = python("-c", code, MPLBACKEND="TkAgg", DISPLAY="", WAYLAND_DISPLAY="")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
