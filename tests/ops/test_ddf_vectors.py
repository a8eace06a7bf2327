# SPDX-License-Identifier: Apache-2.0
"""Tests `ddf2d` with worked examples, and its gradients in the configurations that the authors' code checks."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import ddf2d
from tests.support import cases

pytestmark = pytest.mark.legacy


def rows(text):
    """Parses a matrix whose rows are separated by slashes."""
    return np.array([[float(number) for number in row.split()] for row in text.split("/")])


# Filters, combine, strides, dilation rate, expected output.
ONES = "14 24 30 22 / 33 54 63 45 / 57 90 99 69 / 46 72 78 54"
WORKED = [
    ("ones", "mul", 1, 1, ONES),
    ("ones", "mul", 2, 1, "14 30 / 57 99"),
    ("ones", "mul", 1, 2, "24 28 24 28 / 40 44 40 44 / 24 28 24 28 / 40 44 40 44"),
    ("ones", "mul", 2, 2, "24 24 / 24 24"),
    ("ones", "add", 1, 1, "28 48 60 44 / 66 108 126 90 / 114 180 198 138 / 92 144 156 108"),
    (
        "counted",
        "mul",
        1,
        1,
        "792 1014 990 423 / 3828 5274 5526 3150 / 9522 13134 13656 8034 / 6668 8918 9302 5249",
    ),
    ("counted", "add", 1, 1, "208 308 344 202 / 759 1128 1227 774 / 1809 2676 2829 1824 / 1728 2564 2696 1754"),
    ("counted", "mul", 2, 1, "792 1207 / 5892 8499"),
    ("counted", "add", 2, 1, "208 374 / 1239 1938"),
]


def worked_operands(filters, strides):
    """Returns the image, the channel filters and the spatial filters."""
    image = np.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    size = 4 // strides
    if filters == "ones":
        return image, np.ones((1, 3, 3, 1)), np.ones((1, size, size, 9))
    y, x, tap = np.meshgrid(np.arange(size), np.arange(size), np.arange(9.0), indexing="ij")
    return image, np.arange(1.0, 10.0).reshape(1, 3, 3, 1), (tap + 10.0 * y - x)[None]


@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize("filters, combine, strides, dilation_rate, expected", WORKED, ids=str)
def test_worked_vectors(filters, combine, strides, dilation_rate, expected, mode, implementation, request):
    if mode == "xla" and implementation == "native":
        request.getfixturevalue("native_xla")

    def function(*operands):
        return ddf2d(*operands, strides=strides, dilation_rate=dilation_rate, combine=combine)

    operands = cases.tensors(worked_operands(filters, strides), "float64")
    np.testing.assert_array_equal(cases.run(function, operands, mode, implementation)[0, ..., 0], rows(expected))


# (batch, channels, size, window) of the gradient checks in the authors' code -> (dilation rate, strides, combine) of
# the check under XLA. There is only one such check for each key, because XLA compiles the composite for a second.
GRADIENT_CHECKS = {
    (1, 70, 10, 3): (1, 1, "mul"),
    (35, 1, 10, 3): (2, 2, "add"),
    (1, 1, 50, 3): (2, 1, "mul"),
    (1, 70, 10, 5): (1, 2, "add"),
    (20, 1, 10, 5): (2, 2, "mul"),
    (1, 1, 40, 5): (1, 1, "add"),
}
WINDOWS = [
    (dilation_rate, strides, combine) for dilation_rate in (1, 2) for strides in (1, 2) for combine in ("mul", "add")
]


@pytest.mark.parametrize(
    "images, window, mode",
    [
        *((images, window, "eager") for images in GRADIENT_CHECKS for window in WINDOWS),
        *((images, window, "xla") for images, window in GRADIENT_CHECKS.items()),
    ],
    ids=str,
)
def test_gradient_checks(images, window, mode, request):
    """Gradients along random directions equal finite differences, and native gradients equal composite gradients.

    The finite differences are exact, because `ddf2d` is linear in each operand.
    """
    (batch, channels, size, kernel), (dilation_rate, strides, combine) = images, window
    case = cases.Case("", (batch, size, size, channels), (kernel,) * 2, (strides,) * 2, (dilation_rate,) * 2)
    op = cases.OPS[f"ddf2d_{combine}"]
    request.getfixturevalue("native_library" if mode == "eager" else "native_xla")
    operands = cases.tensors(cases.operands(op, case), "float64")
    (upstream,) = cases.tensors([cases.values(case.output_shape(op), "grad")], "float64")

    def function(*tensors):
        return cases.gradients(op, case, tensors[:-1], tensors[-1])

    native, composite = (cases.run(function, [*operands, upstream], mode, name) for name in ("native", "composite"))
    for index, role in enumerate(op.roles):
        (direction,) = cases.tensors([cases.values(case.operand_shape(role), "direction")], "float64")
        ends = []
        with keras_dynfilter.implementation("native"):
            for step in (1e-3, -1e-3):
                moved = [*operands[:index], operands[index] + step * direction, *operands[index + 1 :]]
                ends.append(tf.reduce_sum(upstream * cases.apply(op, case, moved)))
        numeric = (ends[0] - ends[1]) / 2e-3
        np.testing.assert_allclose(tf.reduce_sum(native[index] * direction), numeric, rtol=1e-7, atol=1e-5)
        np.testing.assert_allclose(composite[index], native[index], rtol=1e-10, atol=1e-10)
