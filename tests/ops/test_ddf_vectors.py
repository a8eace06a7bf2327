# SPDX-License-Identifier: Apache-2.0
"""`ddf2d` on worked numbers, and the configurations of the gradient checks in the authors' code."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import ddf2d
from tests.support import cases

pytestmark = pytest.mark.legacy


def rows(text):
    return np.array([[float(number) for number in row.split()] for row in text.split("/")])


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
    """The image, channel and spatial filters."""
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


# Batch, channels, size and window of the gradient checks in the authors' code.
CHECKED = [(1, 70, 10, 3), (35, 1, 10, 3), (1, 1, 50, 3), (1, 70, 10, 5), (20, 1, 10, 5), (1, 1, 40, 5)]
# The dilation rate, stride and combination with which each of them is checked for the composite under XLA too, which
# takes a second to compile.
COMPILED = [(1, 1, "mul"), (2, 2, "add"), (2, 1, "mul"), (1, 2, "add"), (2, 2, "mul"), (1, 1, "add")]


@pytest.mark.parametrize("mode", ["eager", "xla"])
@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dilation_rate", [1, 2])
@pytest.mark.parametrize("batch, channels, size, kernel", CHECKED)
def test_gradient_checks(batch, channels, size, kernel, dilation_rate, strides, combine, mode, request):
    """Finite differences in float64 along random directions, where every derivative counts: `ddf2d` is linear there.

    The composite is also held to the gradients of the compiled ops.
    """
    case = cases.Case("", (batch, size, size, channels), (kernel,) * 2, (strides,) * 2, (dilation_rate,) * 2)
    op = cases.OPS[f"ddf2d_{combine}"]
    request.getfixturevalue("native_library" if mode == "eager" else "native_xla")
    operands = cases.tensors(cases.operands(op, case), "float64")
    (grad,) = cases.tensors([cases.values(case.output_shape(op), "grad")], "float64")
    chosen = COMPILED[CHECKED.index((batch, channels, size, kernel))] == (dilation_rate, strides, combine)
    results = {
        implementation: cases.run(
            lambda *given: cases.gradients(op, case, given[:-1], given[-1]), [*operands, grad], mode, implementation
        )
        for implementation in (("native", "composite") if mode == "eager" or chosen else ("native",))
    }
    for index, kind in enumerate(op.kinds):
        (direction,) = cases.tensors([cases.values(case.operand_shape(kind), "direction")], "float64")
        ends = []
        with keras_dynfilter.implementation("native"):
            for step in (1e-3, -1e-3):
                moved = [*operands[:index], operands[index] + step * direction, *operands[index + 1 :]]
                ends.append(tf.reduce_sum(grad * cases.apply(op, case, moved)))
        numeric = (ends[0] - ends[1]) / 2e-3
        for gradients in results.values():
            np.testing.assert_allclose(tf.reduce_sum(gradients[index] * direction), numeric, rtol=1e-7, atol=1e-5)
    for others in results.values():
        for one, other in zip(results["native"], others):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
