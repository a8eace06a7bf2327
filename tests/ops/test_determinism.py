# SPDX-License-Identifier: Apache-2.0
"""Tests that repeated runs and other numbers of threads give bitwise equal results."""

import pytest

import keras_dynfilter
from tests.support import cases, determinism

pytestmark = pytest.mark.legacy


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_repeatable(dtype, native_library):
    with keras_dynfilter.implementation("native"):
        first = dict(determinism.digests(dtype))
        for _ in range(2):
            again = dict(determinism.digests(dtype))
            assert [name for name in first if first[name] != again[name]] == []


def test_threads(native_library, python):
    one, four = (lines(python("-m", "tests.support.determinism", threads, "native")) for threads in "14")
    assert len(one) == 2 * 3 * sum(1 + len(op.roles) for op in cases.OPS.values())  # dtypes, shapes, results
    assert [name for name in one if one[name] != four[name]] == []


def lines(done):
    """Returns the digests that a process printed, by name."""
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
