# SPDX-License-Identifier: Apache-2.0
"""Tests that repeated calls and other numbers of threads give bitwise equal results, also for subnormal numbers."""

import pytest

import keras_dynfilter
from tests.support.numerics import digests, problems

pytestmark = pytest.mark.legacy


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_repeatable(dtype, native_library):
    with keras_dynfilter.implementation("native"):
        first = dict(digests.digests(dtype))
        for _ in range(2):
            again = dict(digests.digests(dtype))
            assert [name for name in first if first[name] != again[name]] == []


def test_threads(native_library, python):
    one, *others = (lines(python("-m", "tests.support.numerics.digests", "--threads", n)) for n in "124")
    assert {name.split(" ")[0] for name in one} == set(problems.OPS)
    for other in others:
        assert [name for name in one if one[name] != other[name]] == []


def lines(done):
    """Returns the digests that a process printed, by name."""
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
