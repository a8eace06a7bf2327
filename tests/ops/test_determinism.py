# SPDX-License-Identifier: Apache-2.0
"""Tests that repeated calls and other numbers of threads give bitwise equal results, also for subnormal numbers."""

import pytest

import keras_dynfilter
from tests.support.numerics import digests

pytestmark = pytest.mark.legacy


slow = pytest.mark.slow
DTYPES = ["float32", *(pytest.param(dtype, marks=slow) for dtype in ("float16", "bfloat16", "float64"))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeatable(dtype, native_library):
    with keras_dynfilter.implementation("native"):
        first, again = (dict(digests.digests(dtype)) for _ in range(2))
    assert [name for name in first if first[name] != again[name]] == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype, native_library, python):
    module = ("-m", "tests.support.numerics.digests", "--dtypes", dtype, "--threads")
    one, *others = (lines(python(*module, threads)) for threads in "124")
    assert {name.split(" ")[0] for name in one} == set(digests.OPS)
    for other in others:
        assert [name for name in one if one[name] != other[name] and not by_tensorflow(name)] == []


def by_tensorflow(name):
    """Whether TensorFlow's matrix product in float64 makes the result, which splits a long sum among the threads."""
    op, _, _, dtype, _, result = name.split(" ")
    return (op, dtype, result) == ("project_and_pool", "float64", "kernel")


def lines(done):
    """Returns the digests that a process printed, by name."""
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
