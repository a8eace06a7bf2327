# SPDX-License-Identifier: Apache-2.0
"""The fast reference implementation equals `tests.support.reference`, and its comparison finds small errors."""

import random

import numpy as np
import pytest

from tests.fuzz import fast_reference, problems, rules
from tests.fuzz.failures import Failure
from tests.support import reference


def correct_calls(count, seed):
    generator = random.Random(seed)
    while count:
        call = problems.resolve(problems.draw(generator, generator, changed=0.0))
        geometry = call.geometry
        small = geometry is not None and max(geometry.image) < 100 and np.prod(geometry.image) < 500
        if small and not geometry.is_large(call.raw_op) and max(geometry.strides) < 100:
            count -= 1
            yield call


def reference_result(call, operands):
    geometry, wrt = call.geometry, call.raw_op.wrt
    window = dict(kernel_size=geometry.kernel, strides=geometry.strides, dilation_rate=geometry.dilation)
    window |= dict(padding=call.attributes["padding"], heads=geometry.heads)
    all_operands = {name: np.zeros(geometry.shape(name)) for name in ("inputs", "spatial", "channel", "upstream")}
    all_operands |= operands
    inputs, spatial, channel, upstream = all_operands.values()
    spatial = None if geometry.kind == "channel" else spatial
    channel = channel if geometry.kind in ("channel", "mul", "add") else None
    if wrt is None:
        return reference.filter2d(inputs, spatial, channel, geometry.kind, **window)
    gradients = reference.filter2d_gradients(inputs, spatial, channel, geometry.kind, upstream, **window)
    return dict(zip(("inputs", "spatial", "channel"), gradients))[wrt]


def test_the_fast_reference_equals_the_reference():
    seen = set()
    for call in correct_calls(150, 0):
        _, operands = problems.operands(call)
        with np.errstate(all="ignore"):
            expected = reference_result(call, operands)
        result, scale, _ = fast_reference.derivative(call.geometry, call.raw_op.wrt, operands)
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
        finite = np.isfinite(expected)
        assert np.all(scale[finite] * (1 + 1e-12) >= np.abs(expected[finite]))
        seen.add((call.raw_op.name, call.geometry.kind))
    assert seen == {(raw_op.name, kind) for raw_op in rules.OPS.values() for kind in raw_op.kinds if kind != "add"} | {
        ("DDF2D", "add"),
        ("DDF2DGradInputs", "add"),
    }


@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("change", [1 + 2e-2, 0.0, np.nan, np.inf, -1.0])
def test_a_small_error_is_found(dtype, change):
    exact, scale = np.array([1.0, -3.5, 2.0]), np.array([4.0, 4.0, 4.0])
    fast_reference.compare(exact, exact, scale, 9, dtype)
    with pytest.raises(Failure, match="1 of 3 elements are off"):
        fast_reference.compare(exact * [1, change, 1], exact, scale, 9, dtype)


def test_nan_and_infinities_have_places():
    exact, scale = np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.0])
    fast_reference.compare(exact, exact, scale, 9, "float32")
    for actual in ([1.0, np.inf, 1.0], [np.nan, np.nan, 1.0], [np.nan, -np.inf, 1.0], [np.nan, np.inf, np.nan]):
        with pytest.raises(Failure):
            fast_reference.compare(np.array(actual), exact, scale, 9, "float32")


def test_an_overflow_of_the_dtype_is_no_error():
    exact = np.array([70000.0, 10.0])
    fast_reference.compare(np.array([np.inf, 10.0]), exact, exact, 9, "float16")
    with pytest.raises(Failure):
        fast_reference.compare(np.array([-np.inf, 10.0]), exact, exact, 9, "float16")
    with pytest.raises(Failure):
        fast_reference.compare(np.array([np.inf, 10.0]), exact, exact, 9, "float32")
