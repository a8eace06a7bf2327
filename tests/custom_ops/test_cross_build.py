# SPDX-License-Identifier: Apache-2.0
"""Libraries for aarch64, built on another machine: the commands, and the kernels in an emulator."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_dynfilter.custom_ops import cache, installed, machines, ort_headers, units
from keras_dynfilter.custom_ops.errors import BuildError
from tests.custom_ops.test_cuda_emulation import OPS, jobs_of
from tests.custom_ops.test_isa_dispatch import PROGRAM, SOURCES
from tests.custom_ops.test_sanitizers import LARGE, assert_close, check_projections
from tests.support import cases, cross
from tests.support.cuda_emulation import harness
from tests.support.fake_compiler import FakeCompiler
from tests.support.paths import ROOT
from tests.support.sanitizers import kernels

# Runs the command in a process in which nobody can import TensorFlow or the package.
COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["tensorflow"] = sys.modules["keras"] = sys.modules["keras_dynfilter"] = None
from custom_ops import build
build.main(sys.argv[3:])
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A cross compiler that writes no real code."""
    header = tmp_path / "wheel" / "tensorflow" / "include" / "tensor.h"
    compiler = FakeCompiler(tmp_path, [header], "aarch64-linux-gnu")
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers" / ort_headers.HEADER).write_text("")
    monkeypatch.setenv(ort_headers.VARIABLE, str(tmp_path / "headers"))
    monkeypatch.setenv(cache.VARIABLE, str(compiler.cache))
    return compiler


@pytest.fixture
def wheel(tmp_path):
    """The folder of an unpacked TensorFlow."""
    (tmp_path / "wheel" / "tensorflow" / "include").mkdir(parents=True)
    (tmp_path / "wheel" / "tensorflow" / "include" / "tensor.h").write_text("")
    (tmp_path / "wheel" / "tensorflow-2.21.0.dist-info").mkdir()
    (tmp_path / "wheel" / "tensorflow-2.21.0.dist-info" / "RECORD").write_text("")
    return tmp_path / "wheel"


def test_the_library_for_onnxruntime_needs_no_tensorflow(compiler, tmp_path):
    done = compiler.run_code(COMMAND, "--ort", "--output", str(tmp_path / "output"), KERAS_DYNFILTER_CUDA="1")
    assert done.returncode == 0, done.stderr
    path = pathlib.Path(done.stdout.strip())
    assert path.parent == tmp_path / "output" and cache.reason_against_content(path, units.SYMBOLS["ort"]) == ""
    assert {name for name in compiler.calls() if "/cc/cpu/" in name} and "no CUDA kernels: nvcc compiles" in done.stderr
    log = next(compiler.cache.glob("*.log")).read_text()
    assert "-march=" not in log and "-mcpu=" not in log and "-DKERAS_DYNFILTER_PORTABLE" in log


def test_the_libraries_for_an_unpacked_tensorflow(compiler, wheel, tmp_path):
    arguments = ("--tensorflow", str(wheel), "--output", str(tmp_path / "output"))
    done = compiler.run_code(COMMAND, *arguments)
    assert done.returncode == 0, done.stderr
    found, reasons = installed.find(units.TensorFlow.unpacked(wheel), tmp_path / "output")
    assert found is not None and found.xla is not None and not reasons
    assert [str(found.ops), str(found.xla)] == done.stdout.split("\n")[:2]
    log = found.ops.name.replace(".so", ".log")
    assert f"{wheel}/tensorflow/libtensorflow_framework.so.2" in (compiler.cache / log).read_text()
    compiler.forget_calls()
    assert compiler.run_code(COMMAND, *arguments).returncode == 0 and not compiler.calls()


def test_a_cross_build_needs_the_tensorflow_of_the_other_machine(compiler):
    done = compiler.run_code(COMMAND)
    assert done.returncode == 1 and not compiler.calls()
    name = machines.this().name
    assert (
        f"Expected CXX to be a compiler for this machine ({name}), or `--tensorflow` to be a folder with" in done.stderr
    )
    assert f"Received: CXX={compiler.path}, and no `--tensorflow`" in done.stderr


@pytest.mark.parametrize("missing", ["tensorflow/include", "tensorflow-2.21.0.dist-info/RECORD"])
def test_a_folder_without_tensorflow_is_named(missing, compiler, wheel):
    (wheel / missing).rename(wheel / "elsewhere")
    done = compiler.run_code(COMMAND, "--tensorflow", str(wheel))
    assert done.returncode == 1 and not compiler.calls()
    assert "Expected `--tensorflow` to be a folder with one unpacked wheel" in done.stderr
    assert f"Received: {wheel}" in done.stderr


# --- The real compiler and the emulator.


@pytest.fixture(scope="module")
def tools():
    """Skips tests where programs for aarch64 cannot be compiled and run."""
    reason = cross.reason_against()
    if reason and cross.REQUIRED:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def library(tools, tmp_path_factory):
    """The library for onnxruntime that the documented command builds, and the folder of its objects."""
    folder = tmp_path_factory.mktemp("cross")
    try:
        headers = ort_headers.find_headers(cache.cache_folder())
    except BuildError as error:
        pytest.skip(f"the headers of ONNX Runtime are missing: {error}")
    variables = {
        "CXX": cross.COMPILER,
        "KERAS_DYNFILTER_MARCH": "portable",
        cache.VARIABLE: str(folder / "cache"),
        ort_headers.VARIABLE: str(headers),
    }
    command = [sys.executable, "-m", "custom_ops.build", "--ort", "--output", str(folder / "output")]
    done = subprocess.run(command, env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pathlib.Path(done.stdout.strip()), folder / "cache" / "objects"


LOADER = r"""
#include <dlfcn.h>
#include <cstdio>
int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  if (library == nullptr || dlsym(library, "RegisterCustomOps") == nullptr) return std::puts(dlerror()), 1;
}
"""


@pytest.mark.slow
def test_the_library_loads(library, tmp_path):
    (tmp_path / "loader.cc").write_text(LOADER)
    cross.compile_program(tmp_path / "loader.cc", tmp_path / "loader", "-ldl")
    done = subprocess.run([*cross.command(tmp_path / "loader"), str(library[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def program(library, tmp_path_factory):
    """The command that runs the kernels of the library on given problems."""
    folder = tmp_path_factory.mktemp("program")
    objects = [str(path) for path in library[1].glob("*.o")]
    flags = ["-O1", "-pthread", "-static", f"-I{SOURCES}", "-isystem", units.TensorFlow.installed().include, *objects]
    cross.compile_program(kernels.HERE / "kernels.cc", folder / "kernels", *flags)
    return cross.command(folder / "kernels")


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_the_kernels_match_the_reference(op, program):
    """Every derivative, with the types in turn."""
    types = list(harness.DTYPES)
    numbered = enumerate([*cases.CASES, LARGE], start=OPS.index(op))
    jobs = [job for number, case in numbered for job in jobs_of(op, case, types[number % len(types)])]
    results = kernels.run_program(program, [job for job, *_ in jobs], "onnxruntime")
    for (result,), (_, *truth) in zip(results, jobs, strict=True):
        assert_close(result, *truth)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_project_and_pool_matches_the_reference(dtype, program):
    check_projections(lambda jobs: kernels.run_program(program, jobs, "caller"), dtype)


CONVERSIONS = r"""
#include <cstdio>

#include "cpu/flush_subnormals.h"
#include "cpu/simd/vec.h"

using namespace keras_dynfilter::cpu::native;

// Converts halves to floats, and floats to halves, four at a time.
template <typename Half>
void convert(int values) {
  Half halves[4];
  float floats[4];
  for (; values > 0; values -= 4) {
    std::fread(halves, sizeof halves, 1, stdin);
    store(floats, load(halves));
    std::fwrite(floats, sizeof floats, 1, stdout);
    std::fread(floats, sizeof floats, 1, stdin);
    store(halves, load(floats));
    std::fwrite(halves, sizeof halves, 1, stdout);
  }
}

int main() {
  const keras_dynfilter::cpu::FlushSubnormals flush;
  convert<Float16>(1 << 16);
  convert<BFloat16>(1 << 16);
}
"""


@pytest.mark.slow
def test_conversions_of_half_types_are_exact(tools, tmp_path):
    """Every value of each type, and floats near the middle of two values, in a thread that flushes subnormal floats."""
    (tmp_path / "main.cc").write_text(CONVERSIONS)
    cross.compile_program(tmp_path / "main.cc", tmp_path / "program", "-O2", f"-I{SOURCES}")
    every = np.arange(2**16, dtype=np.uint16)
    halves, floats = [every.view(harness.DTYPES[name]) for name in ("float16", "bfloat16")], []
    for values in halves:
        bits = values.astype(np.float32).view(np.uint32)
        half_step = 2**12 if values is halves[0] else 2**15
        floats.append(
            (bits + np.resize(np.array([0, half_step - 1, half_step, half_step + 1], np.uint32), 2**16)).view("f")
        )
    floats[1][np.abs(floats[1]) < np.finfo("f").tiny] = 0  # subnormal floats
    stream = b"".join(
        np.concatenate([h.reshape(-1, 4).view(np.uint8), f.reshape(-1, 4).view(np.uint8)], axis=1).tobytes()
        for h, f in zip(halves, floats)
    )
    done = subprocess.run(cross.command(tmp_path / "program"), input=stream, capture_output=True, check=True)
    results = np.frombuffer(done.stdout, np.uint8).reshape(2, -1, 24)
    for values, inputs, result in zip(halves, floats, results):
        widened = np.ascontiguousarray(result[:, :16]).view("f").ravel()
        narrowed = np.ascontiguousarray(result[:, 16:]).view(values.dtype).ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            assert_equal_or_nan(widened, values.astype("f"))
            assert_equal_or_nan(narrowed, inputs.astype(values.dtype))


def assert_equal_or_nan(actual, expected):
    nan = np.isnan(expected.astype("f"))
    assert np.array_equal(np.isnan(actual.astype("f")), nan) and 0 < nan.sum() < nan.size
    np.testing.assert_array_equal(actual[~nan].view(np.uint8), expected[~nan].view(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("name, warns", [("", False), ("baseline", False), ("v3", True)])
def test_the_only_instruction_set_is_the_baseline(name, warns, tools, tmp_path):
    (tmp_path / "main.cc").write_text(PROGRAM)
    flags = ["-DKERAS_DYNFILTER_PORTABLE", f"-I{SOURCES}", str(SOURCES / "cpu" / "isa_dispatch.cc")]
    cross.compile_program(tmp_path / "main.cc", tmp_path / "program", *flags)
    variables = {**os.environ, "KERAS_DYNFILTER_CPU_ISA_TARGET": name}
    done = subprocess.run(cross.command(tmp_path / "program"), env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["baseline"] * 2, done.stderr
    expected = "Expected KERAS_DYNFILTER_CPU_ISA_TARGET to be baseline, and an instruction set of this processor."
    assert (expected in done.stderr) is warns and bool(done.stderr) is warns
