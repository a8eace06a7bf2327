# SPDX-License-Identifier: Apache-2.0
"""The time of a call is bounded by the bytes that it touches and the products that it adds, for every raw op."""

import pytest

from tests.support import extreme_shapes, raw_ops


@pytest.mark.parametrize(
    "mode, count",
    [
        ("eager", 12),
        pytest.param("eager", 1000, marks=pytest.mark.slow),
        pytest.param("graph", 40, marks=pytest.mark.slow),
        pytest.param("xla", 25, marks=pytest.mark.slow),
    ],
)
def test_extreme_shapes_end_at_once(mode, count, native_ops, python):
    """Each call has few bytes and few products. A loop over taps, rows or batches without bytes would not end."""
    done = python("-m", "tests.support.extreme_shapes", mode, str(count))
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + [done.stderr[-4000:]]
    assert done.stdout.endswith("finished\n")


@pytest.mark.parametrize("op", raw_ops.OPS, ids=[f"{op.name}-{op.kind}" for op in raw_ops.OPS])
def test_the_calls_are_extreme(op):
    """Every op gets calls with results of nothing, sums over nothing, and windows that are larger than the image."""
    calls = extreme_shapes.calls_of(op, 12)
    assert len(calls) == 12
    assert any(0 in call.shape(op.result) for call in calls)
    assert any(max(call.rows.window, call.columns.window) > 2**16 for call in calls)
