# SPDX-License-Identifier: Apache-2.0
"""The builder of the ops: its errors, its cache keys, and when it compiles again."""

import ast
import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keras_dynfilter.custom_ops import build, cache, compilers, installed, machines, sources, units
from tests.support.fake_compiler import FakeCompiler
from tests.support.paths import ROOT

pytestmark = pytest.mark.legacy

USE = """
import warnings
import numpy as np
import keras_dynfilter
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        y = keras_dynfilter.ops.local_filter2d(np.ones((1, 3, 3, 1), "f"), np.ones((1, 3, 3, 9), "f"), 3)
messages = [str(w.message) for w in caught if "keras_dynfilter" in str(w.message)]
assert y.shape == (1, 3, 3, 1) and float(y[0, 1, 1, 0]) == 9.0
print(len(messages), *messages)
"""


def test_without_a_compiler_the_composite_runs_with_one_warning(python, tmp_path):
    done = python("-c", USE, PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path), CXX="g++")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 keras_dynfilter runs on composite TensorFlow ops")
    assert "no C++ compiler was found" in done.stdout


def test_a_failing_compiler_names_the_log(python, tmp_path):
    compiler = FakeCompiler(tmp_path)
    compiler.behave("echo something is wrong; exit 1")
    variables = dict(CXX=str(compiler.path), KERAS_DYNFILTER_CACHE=str(compiler.cache), KERAS_DYNFILTER_CUDA="0")
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    (log,) = compiler.files("libkeras_dynfilter_ops-*.log")
    assert done.stdout.startswith("1 ") and f"see the log {log}" in done.stdout
    assert "something is wrong" in log.read_text()
    assert not compiler.files("*.o")

    compiler.forget_calls()  # the next process does not try to compile again
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    assert "to try again: python -m keras_dynfilter.custom_ops.build" in done.stdout and not compiler.calls()


@pytest.mark.slow
def test_a_library_that_does_not_load_is_explained(python, tmp_path):
    """The fake compiler writes no real library, but its checksum is correct."""
    compiler = FakeCompiler(tmp_path)
    variables = dict(CXX=str(compiler.path), KERAS_DYNFILTER_CACHE=str(compiler.cache), KERAS_DYNFILTER_CUDA="0")
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 keras_dynfilter runs on composite TensorFlow ops")
    assert str(compiler.files("libkeras_dynfilter_ops-*.so")[0]) in done.stdout


def copied_cache(native_library, folder):
    """Copies the libraries of this process to a cache in `folder`. Returns the path of the ops."""
    folder.mkdir()
    for path in map(pathlib.Path, native_library.paths):
        shutil.copy(path, folder)
        shutil.copy(cache.checksum_file(path), folder)
    return folder / pathlib.Path(native_library.paths[0]).name


@pytest.mark.slow
def test_truncated_libraries_are_not_loaded(native_library, python, tmp_path):
    """Loading them would end the process with SIGBUS."""
    path = copied_cache(native_library, tmp_path / "cache")
    os.truncate(path, path.stat().st_size // 2)
    done = python("-c", USE, PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "no C++ compiler was found" in done.stdout


@pytest.mark.slow
def test_a_copied_cache_needs_no_compiler(native_library, python, tmp_path):
    copied_cache(native_library, tmp_path / "cache")
    done = python("-c", USE, PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n" and "keras_dynfilter" not in done.stderr


PLANTED = """
#include <stdlib.h>
__attribute__((constructor)) void run() { _Exit(7); }
"""


@pytest.mark.slow
def test_a_planted_library_does_not_run(native_library, python, tmp_path):
    """Another user may write a library with its checksum into a folder that all users can write."""
    path = copied_cache(native_library, tmp_path / "cache")
    (tmp_path / "planted.c").write_text(PLANTED)
    names = [f"-Wl,--defsym={name}=0" for name in units.SYMBOLS.values()]
    command = ["g++", "-shared", "-fPIC", *names, "-o", str(path), str(tmp_path / "planted.c")]
    subprocess.run(command, check=True)
    cache.checksum_file(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    path.chmod(0o644)
    variables = dict(PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path / "cache"))
    assert python("-c", USE, **variables).returncode == 7  # the attack works in a folder that is trusted
    (tmp_path / "cache").chmod(0o777)
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    assert "Expected the cache folder to be changeable by this user and root only" in done.stdout


@pytest.mark.slow
def test_a_relative_cache_folder_is_refused(python):
    done = python("-c", USE, KERAS_DYNFILTER_CACHE="relative")
    assert done.returncode == 0, done.stderr
    assert "to be an absolute path. Received: KERAS_DYNFILTER_CACHE=relative" in done.stdout
    assert not (ROOT / "relative").exists()


@pytest.mark.slow
def test_an_unusable_cache_folder_is_named(python, tmp_path):
    (tmp_path / "file").write_text("")
    done = python("-c", USE, KERAS_DYNFILTER_CACHE=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert f"the cache folder {tmp_path / 'file'} cannot be used" in done.stdout


@pytest.mark.slow
def test_the_command_says_what_is_missing(python, tmp_path):
    done = python("-m", "keras_dynfilter.custom_ops.build", PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert "no C++ compiler was found" in done.stderr


def test_importing_needs_no_compiler_and_builds_nothing(python, tmp_path):
    code = "import sys, keras_dynfilter\nfrom keras_dynfilter.ops.backends import library\n"
    code += "assert library.loaded() is None and 'keras_dynfilter.custom_ops.build' not in sys.modules"
    done = python("-c", code, PATH="/nowhere", KERAS_DYNFILTER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def compiler(native_library):
    return compilers.Compilers.installed()


def test_a_second_build_compiles_nothing(native_library):
    messages = []
    libraries = build.build(progress=messages.append)
    assert not messages
    assert str(libraries.ops) in native_library.paths


@pytest.fixture
def tensorflow():
    return units.TensorFlow("2.21.0", "build", "/include", "/lib", ())


@pytest.mark.parametrize(
    "version, has_xla",
    [("2.15.1", False), ("2.19.1", False), ("2.20.0", True), ("2.22.0-rc0", True), ("2.100.0", True), ("3.0.0", True)],
)
def test_versions_with_xla(version, has_xla, tensorflow):
    """The wheels of TensorFlow contain the headers of XLA's FFI from 2.20 on."""
    assert dataclasses.replace(tensorflow, version=version).has_xla is has_xla


def test_keys_change_with_every_input(compiler, monkeypatch, tensorflow, tmp_path):
    def keys():
        return [compiler.object_key(unit) for unit in units.ops_library(tensorflow, False).units]

    before, name = keys(), units.ops_library(tensorflow, False).file_name
    assert keys() == before and len(set(before)) == len(before)
    kernels, framework = before[:-3], before[-3:]
    monkeypatch.setenv("KERAS_DYNFILTER_MARCH", "x86-64-v3")
    assert not set(keys()[1:-3]) & set(kernels)  # all except the choice of the instruction set
    assert keys()[-3:] == framework
    assert units.ops_library(tensorflow, False).file_name != name
    monkeypatch.delenv("KERAS_DYNFILTER_MARCH")
    for change in (dict(version="2.21.1"), dict(build="other"), dict(flags=("-DOTHER",))):
        other = units.ops_library(dataclasses.replace(tensorflow, **change), False)
        assert not {compiler.object_key(unit) for unit in other.units} & set(framework)
        assert [compiler.object_key(unit) for unit in other.units][:-3] == kernels
        assert other.file_name != name
    with_cuda = units.ops_library(tensorflow, True)
    assert {compiler.object_key(unit) for unit in with_cuda.units if "cpu" in unit.source.parts} == set(kernels)
    monkeypatch.setattr(machines, "instruction_sets", lambda: "another processor")
    assert not set(keys()[1:-3]) & set(kernels) and units.ops_library(tensorflow, False).file_name != name


def test_keys_do_not_depend_on_folders(compiler, monkeypatch, tensorflow, tmp_path):
    plan = units.ops_library(tensorflow, False)
    keys, name = [compiler.object_key(unit) for unit in plan.units], plan.file_name
    monkeypatch.setattr(sources, "FOLDER", shutil.copytree(sources.FOLDER, tmp_path / "cc"))
    moved = units.ops_library(dataclasses.replace(tensorflow, include="/other", lib="/other"), False)
    assert [compiler.object_key(unit) for unit in moved.units] == keys and moved.file_name == name
    version = sources.ops_version()
    with open(tmp_path / "cc" / "family.h", "a") as header:
        header.write("// changed\n")
    changed = units.ops_library(tensorflow, False)
    assert {compiler.object_key(unit) for unit in changed.units}.isdisjoint(keys)
    assert changed.file_name != name and sources.ops_version() != version


def test_the_name_of_the_library_for_onnxruntime_does_not_depend_on_headers(compiler, tmp_path):
    plan = units.ort_library(False)
    keys = set()
    for text in ("one release", "another release"):
        (tmp_path / "onnxruntime_cxx_api.h").write_text(text)
        with_headers = units.ort_library(False, tmp_path)
        assert with_headers.file_name == plan.file_name
        keys.add(compiler.object_key(with_headers.units[-1]))
    assert len(keys) == 2


def test_cuda_architectures_are_chosen_by_the_variable(monkeypatch, tensorflow):
    monkeypatch.setenv("KERAS_DYNFILTER_CUDA_ARCHITECTURES", "75;86")
    unit = next(unit for unit in units.ops_library(tensorflow, True).units if unit.is_cuda)
    command = " ".join(compilers.Compilers(("g++",), "nvcc").compile_command(unit, pathlib.Path("a.o")))
    for target in ("arch=compute_75,code=sm_75", "arch=compute_86,code=sm_86", "arch=compute_86,code=compute_86"):
        assert target in command


STUB = """
class test:
    is_built_with_cuda = staticmethod(lambda: False)
class version:
    VERSION, GIT_VERSION, COMPILER_VERSION = "2.15.1", "git", "compiler"
class sysconfig:
    get_compile_flags = staticmethod(lambda: [])
    get_include = get_lib = staticmethod(lambda: "INCLUDE")
"""
BUILD_WHEEL = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def test_an_installation_with_tensorflow_contains_libraries_with_checksums(tmp_path):
    pytest.importorskip("setuptools")
    include = tmp_path / "stub" / "tensorflow"
    include.mkdir(parents=True)
    (include / "__init__.py").write_text(STUB.replace("INCLUDE", str(include)))
    (include / "header.h").touch()
    compiler = FakeCompiler(tmp_path, [include / "header.h"])
    source = tmp_path / "source"
    for folder in ("custom_ops", "export", "keras_dynfilter", "release"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    variables = dict(CXX=str(compiler.path), KERAS_DYNFILTER_CACHE=str(compiler.cache), KERAS_DYNFILTER_CUDA="0")
    variables |= dict(PYTHONPATH=str(tmp_path / "stub"), PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, "-c", BUILD_WHEEL, str(tmp_path)],
        cwd=source,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).extractall(tmp_path / "installed")
    tensorflow = units.TensorFlow("2.15.1", "", str(include), str(include), ())
    folder = tmp_path / "installed" / "keras_dynfilter" / "custom_ops" / "lib"
    assert installed.find(tensorflow, folder)[0] is not None, installed.find(tensorflow, folder)


PRINT_SOFTMAX_FILTER = """
import sys
import tensorflow as tf
ops = tf.load_op_library(sys.argv[1])
x, s = tf.random.stateless_normal((2, 5, 6, 40), (1, 2)), tf.random.stateless_normal((2, 5, 6, 9), (3, 4))
print(repr(ops.keras_dynfilter_softmax_local_filter2d(inputs=x, filters=s, kernel_h=3, kernel_w=3).numpy().tolist()))
"""


@pytest.mark.slow
def test_a_portable_library_serves_every_instruction_set(native_ops, python, monkeypatch):
    monkeypatch.setenv("KERAS_DYNFILTER_MARCH", "portable")
    monkeypatch.setenv("KERAS_DYNFILTER_CUDA", "0")
    monkeypatch.setattr(units.TensorFlow, "has_xla", False)  # not the subject of this test, and slow to compile
    library = build.build().ops  # stays in the cache, so it is compiled only when a kernel changes
    results = []
    for target in reversed(
        units.ISA_TARGETS["x86_64"]
    ):  # a target that this machine does not support falls back to the baseline
        done = python("-c", PRINT_SOFTMAX_FILTER, str(library), KERAS_DYNFILTER_CPU_ISA_TARGET=target)
        assert done.returncode == 0, done.stderr
        results.append(np.array(ast.literal_eval(done.stdout)))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(results[2], results[0], rtol=0, atol=2e-6)
    assert np.abs(results[0]).max() > 0.1
