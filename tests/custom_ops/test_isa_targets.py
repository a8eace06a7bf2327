# SPDX-License-Identifier: Apache-2.0
"""Tests which results of a portable library have equal bits on AVX-512 (v4), AVX2 (v3) and the baseline of x86-64.

docs/design/numerics.md explains the rules.
"""

import pathlib

import pytest

from keras_dynfilter.custom_ops import build, units
from tests.support.numerics import digests

CASES = {case.name: case for case in digests.CASES}
HALF = ("float16", "bfloat16")


def equal_with_fma(op, case, dtype, result):
    """Whether v3 and v4, which both have fused multiply-adds, add the terms of a result in the same order."""
    lanes = 8 if dtype == "float64" else 16  # of v4; v3 has half
    per_head = case.shape[3] // (1 if op == "dynamic_depthwise_conv2d" else case.heads)
    match op, result:
        case ("dynamic_depthwise_conv2d" | "ddf2d_mul" | "ddf2d_add", "output") | ("ddf2d_mul", "channel"):
            return True
        case ("dynamic_depthwise_conv2d" | "ddf2d_add", "channel"):
            return case.shape[3] >= lanes
        case ("local_filter2d", "output"):
            return per_head >= lanes
        case ("local_filter2d" | "dynamic_depthwise_conv2d" | "ddf2d_mul" | "ddf2d_add", "inputs"):
            return per_head % lanes == 0
    return False


def equal_everywhere(op, case, dtype, result):
    """Whether the products are exact, too, so that fused multiply-adds make no difference."""
    return (
        dtype in HALF
        and result == "output"
        and op in ("local_filter2d", "dynamic_depthwise_conv2d")
        and equal_with_fma(op, case, dtype, result)
    )


@pytest.mark.slow
def test_equal_bits(native_ops, python, monkeypatch):
    if "avx512bw" not in pathlib.Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a processor with AVX-512")
    monkeypatch.setenv("KERAS_DYNFILTER_MARCH", "portable")
    monkeypatch.setenv("KERAS_DYNFILTER_CUDA", "0")
    monkeypatch.setattr(units.TensorFlow, "has_xla", False)  # not the subject of this test, and slow to compile
    library = build.build().ops  # stays in the cache, so it is compiled only when a kernel changes
    baseline, v3, v4 = (lines(python, library, target) for target in ("baseline", "v3", "v4"))
    promised = dict.fromkeys((equal_with_fma, equal_everywhere), 0)
    for name in v4:
        op, case, distribution, dtype, order, result = name.split(" ")
        if order == "second":
            continue
        if equal_with_fma(op, CASES[case], dtype, result):
            promised[equal_with_fma] += 1
            assert v3[name] == v4[name], name
        if distribution == "normal" and equal_everywhere(op, CASES[case], dtype, result):
            promised[equal_everywhere] += 1
            assert baseline[name] == v3[name], name
    assert min(promised.values()) >= 10
    # The instruction sets were really different.
    assert sum(v3[name] != v4[name] for name in v4) > 50 and sum(baseline[name] != v3[name] for name in v4) > 50


def lines(python, library, target):
    """Returns the digests of a process that uses one instruction set."""
    done = python(
        "-m", "tests.support.numerics.digests", "--library", str(library), KERAS_DYNFILTER_CPU_ISA_TARGET=target
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
