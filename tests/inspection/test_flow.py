# SPDX-License-Identifier: Apache-2.0
"""`filters_to_flow` and `end_point_error` follow their formulas, and refuse wrong arguments."""

import math

import numpy as np
import pytest

from keras_dynfilter import inspection, ops

pytestmark = pytest.mark.legacy
NAN = math.nan


def one_hot(kernel_size, u, v):
    filters = np.zeros(kernel_size)
    filters[u, v] = 1
    return filters.ravel()


@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 13), (5, 2), (4, 4)])
def test_a_one_hot_filter_gives_its_offset(kernel_size):
    before = [(extent - 1) // 2 for extent in kernel_size]
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            flow = inspection.filters_to_flow(one_hot(kernel_size, u, v), kernel_size)
            assert flow.tolist() == [v - before[1], u - before[0]]


def test_flow_points_to_where_the_op_reads_its_values():
    """This includes windows of even size, which only `dynamic_conv2d` has."""
    image = np.random.default_rng(0).normal(size=(1, 9, 9, 1)).astype(np.float32)
    for kernel_size in ((5, 3), (4, 2)):
        filters = one_hot(kernel_size, 0, 1).astype(np.float32)
        x, y = inspection.filters_to_flow(filters, kernel_size).astype(int)
        result = ops.dynamic_conv2d(image, filters.reshape(1, *kernel_size, 1, 1), padding="same").numpy()
        assert result[0, 4, 4, 0] == image[0, 4 + y, 4 + x, 0]


def test_uniform_and_mixed_filters():
    assert inspection.filters_to_flow(np.full([2, 5, 81], 1 / 81), 9) == pytest.approx(np.zeros([2, 5, 2]), abs=1e-12)
    filters = 0.75 * one_hot((3, 5), 0, 4) + 0.25 * one_hot((3, 5), 2, 3)
    assert inspection.filters_to_flow(filters, (3, 5)) == pytest.approx([0.75 * 2 + 0.25 * 1, -0.75 + 0.25])


def test_flow_dtypes():
    filters = one_hot((3, 3), 2, 2)
    for dtype, result in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        flow = inspection.filters_to_flow(filters.astype(dtype), 3)
        assert flow.dtype == result and flow.tolist() == [1, 1]


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


def test_end_point_error():
    true_flow = field((0, 0), (1, 1), (NAN, NAN))
    flow = field((3, 4), (1, 2), (0, 0))
    mask = np.array([[1, 1, 0]])
    assert inspection.end_point_error(flow, true_flow, mask) == pytest.approx((5 + 1) / 2)
    assert inspection.end_point_error(flow[:, :2], true_flow[:, :2]) == pytest.approx(3)
    assert inspection.end_point_error([[2.0], [-1.0]], [[0.0], [0.0]]) == pytest.approx(1.5)
    assert math.isnan(inspection.end_point_error(flow, true_flow))


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
