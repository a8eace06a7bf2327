# SPDX-License-Identifier: Apache-2.0
"""Tests which instruction set a portable library uses. Functions that print their target replace the kernels."""

import shutil
import subprocess

import pytest

from tests.support.paths import ROOT

SOURCES = ROOT / "custom_ops" / "cc"
PROGRAM = r"""
#include <cstdio>

#include "family.h"
#include "project_and_pool.h"

namespace keras_dynfilter::cpu {
#define DEFINE(target)                                                                                      \
  namespace target {                                                                                        \
  size_t workspace_bytes(const Problem&) { return 0; }                                                      \
  size_t workspace_bytes(const Projection&) { return 0; }                                                   \
  void run(const Problem&, const Buffers&, const ParallelFor&) { std::puts(#target); }                      \
  void run(const Projection&, const ProjectionBuffers&, const ParallelFor&) { std::puts("projection"); }    \
  }
DEFINE(v4)
DEFINE(v3)
DEFINE(baseline)
}  // namespace keras_dynfilter::cpu

int main() {
  keras_dynfilter::cpu::run(keras_dynfilter::Problem{}, keras_dynfilter::Buffers{}, {});
  keras_dynfilter::cpu::run(keras_dynfilter::Problem{}, keras_dynfilter::Buffers{}, {});
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("g++") or pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    sources = [folder / "main.cc", SOURCES / "cpu" / "isa_dispatch.cc"]
    flags = ["-std=c++17", "-DKERAS_DYNFILTER_PORTABLE", f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, *sources, "-o", folder / "program"], check=True)
    return folder / "program"


def run(program, **variables):
    """Returns the target that two calls use, and the warnings."""
    done = subprocess.run([program], env=variables, capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second
    return first, done.stderr


def test_the_baseline_can_be_requested(program):
    assert run(program, KERAS_DYNFILTER_CPU_ISA_TARGET="baseline") == ("baseline", "")


def test_an_empty_variable_is_like_no_variable(program):
    best, warnings = run(program)
    assert run(program, KERAS_DYNFILTER_CPU_ISA_TARGET="") == (best, "") and warnings == ""


@pytest.mark.parametrize("name", ["avx2", "V3", "native", "v3 "])
def test_unknown_targets_give_one_warning(program, name):
    target, warning = run(program, KERAS_DYNFILTER_CPU_ISA_TARGET=name)
    expected = "keras_dynfilter: Expected KERAS_DYNFILTER_CPU_ISA_TARGET to be v4, v3 or baseline, and "
    assert target == "baseline" and warning.startswith(expected), warning
    assert f"Received: {name}. The baseline is used." in warning and warning.count("\n") == 1


@pytest.mark.parametrize("name", ["v3", "v4"])
def test_targets_are_used_or_the_warning_says_why_not(program, name):
    target, warning = run(program, KERAS_DYNFILTER_CPU_ISA_TARGET=name)
    assert (target, warning) == (name, "") or (target == "baseline" and f"Received: {name}" in warning)
