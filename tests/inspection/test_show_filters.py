# SPDX-License-Identifier: Apache-2.0
"""`show_filters` and `show_images` draw arrays with the right colour scale, and refuse wrong shapes."""

import numpy as np
import pytest

from keras_dynfilter import inspection

pytest.importorskip("matplotlib")

FILTERS = np.linspace(-1, 2, 18).reshape(2, 3, 3)
IMAGE = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.fixture
def figure():
    return inspection.new_figure(4, 3)


def test_new_figure(figure):
    assert figure.get_size_inches().tolist() == [4, 3]


def test_filters_share_a_scale_that_is_centred_on_zero(figure, tmp_path):
    inspection.show_filters(figure, {"learned": FILTERS, "true": FILTERS / 4}, ["a", "b"])
    limits = [image.get_clim() for axis in figure.axes for image in axis.images]
    assert limits == [(-2.0, 2.0)] * 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["a", "b"]
    figure.savefig(tmp_path / "filters.png")


def test_grey_images_have_a_scale_of_their_own(figure):
    inspection.show_images(figure, {"image": IMAGE, "result": -3 * IMAGE}, grey=["image"], percentile=100)
    assert [image.get_clim() for axis in figure.axes for image in axis.images] == [(0.0, 1.0), (-3.0, 3.0)]


ERRORS = {
    "no rows": (inspection.show_filters, ({}, []), r"Expected `rows` not to be empty\. Received: rows=\{\}"),
    "no columns": (inspection.show_filters, ({"a": FILTERS}, []), r"Expected `titles` not to be empty\. .*titles=\[\]"),
    "columns": (
        inspection.show_filters,
        ({"a": FILTERS}, ["b"]),
        r"of shape \(1, kernel_h.*rows\['a'\]\.shape=\(2, 3, 3\)",
    ),
    "rank": (
        inspection.show_filters,
        ({"a": IMAGE}, ["b"] * 3),
        r"of shape \(3, kernel_h.*rows\['a'\]\.shape=\(3, 4\)",
    ),
    "no window": (inspection.show_filters, ({"a": FILTERS[:, :0]}, ["b"] * 2), r"kernel_h.*\.shape=\(2, 0, 3\)"),
    "no images": (inspection.show_images, ({},), r"Expected `images` not to be empty\. Received: images=\{\}"),
    "image rank": (
        inspection.show_images,
        ({"a": FILTERS},),
        r"\(height, width\)\. .*images\['a'\]\.shape=\(2, 3, 3\)",
    ),
    "empty image": (
        inspection.show_images,
        ({"a": IMAGE[:0]},),
        r"\(height, width\)\. .*images\['a'\]\.shape=\(0, 4\)",
    ),
}


@pytest.mark.parametrize("show, arguments, message", ERRORS.values(), ids=ERRORS)
def test_errors(show, arguments, message, figure):
    with pytest.raises(ValueError, match=message):
        show(figure, *arguments)
