# SPDX-License-Identifier: Apache-2.0
"""The builder of the ops: its errors, its cache keys, and when it compiles again."""

import ast
import concurrent.futures
import dataclasses
import pathlib
import stat

import numpy as np
import pytest

from keras_dynfilter.custom_ops import build

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
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho something is wrong\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    variables = dict(CXX=str(compiler), KERAS_DYNFILTER_CACHE=str(tmp_path / "cache"), KERAS_DYNFILTER_CUDA="0")
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "cache" / "build.log"
    assert done.stdout.startswith("1 ") and f"see the log {log}" in done.stdout
    assert "something is wrong" in log.read_text()
    assert not list((tmp_path / "cache" / "objects").glob("*.o"))

    log.unlink()  # the next process does not try to compile again
    done = python("-c", USE, **variables)
    assert done.returncode == 0, done.stderr
    assert "to try again: python -m keras_dynfilter.custom_ops.build" in done.stdout and not log.exists()


def test_an_unusable_cache_folder_is_named(python, tmp_path):
    (tmp_path / "file").write_text("")
    done = python("-c", USE, KERAS_DYNFILTER_CACHE=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert f"the cache folder {tmp_path / 'file'} cannot be used" in done.stdout


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


FAKE_COMPILER = """#!/bin/sh
for argument; do [ "$previous" = -o ] && output=$argument; previous=$argument; done
[ -n "$output" ] || exit 0  # a query of the version
echo "$output" >> "{log}"
touch "$output"
"""
BUILD = """
import pathlib, sys, time
from keras_dynfilter.custom_ops import build
folder, marker = map(pathlib.Path, sys.argv[1:])
(folder / marker).touch()
while len(list(folder.glob("ready*"))) < 2:
    time.sleep(0.01)
tensorflow = build.TensorFlow("2.15.1", str(folder), str(folder), ())  # a version without XLA
print(build.build(tensorflow, folder / "cache", lambda text: None).ops)
"""


@pytest.mark.slow
def test_two_processes_that_build_at_once_compile_everything_once(python, tmp_path):
    compiler, log = tmp_path / "compiler", tmp_path / "calls"
    compiler.write_text(FAKE_COMPILER.format(log=log))
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)

    def start(name):
        return python("-c", BUILD, str(tmp_path), name, CXX=str(compiler), KERAS_DYNFILTER_CUDA="0")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, ["ready1", "ready2"])
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout
    outputs = [pathlib.Path(line).name.rsplit(".", 1)[0] for line in log.read_text().split()]  # without the process id
    assert len(outputs) == len(set(outputs)) > 3
    objects = {path.name for path in (tmp_path / "cache" / "objects").iterdir()}
    assert objects | {pathlib.Path(first.stdout.strip()).name} == set(outputs)


@pytest.fixture
def compiler(native_library):
    return build._Compiler.installed(build.TensorFlow.installed())


def test_a_second_build_compiles_nothing(native_library):
    messages = []
    libraries = build.build(progress=messages.append)
    assert not messages
    assert str(libraries.ops) in native_library.paths


def test_keys_change_with_every_input(compiler, monkeypatch, tmp_path):
    source = build.SOURCES / "cpu" / "launch.cc"
    key = compiler.cpu(source, "native").key
    assert key == compiler.cpu(source, "native").key
    assert key != compiler.cpu(build.SOURCES / "cpu" / "types" / "float32.cc", "native").key
    assert key != compiler.cpu(source, "x86-64-v3").key
    assert key != dataclasses.replace(compiler, salt=compiler.salt + "another TensorFlow").cpu(source, "native").key

    copy = tmp_path / "cc"
    for path in build._closure(source):
        target = copy / path.relative_to(build.SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    monkeypatch.setattr(build, "SOURCES", copy)
    before = build._Unit(copy / "cpu" / "launch.cc", (), "").key
    with open(copy / "family.h", "a") as header:
        header.write("// changed\n")
    assert before != build._Unit(copy / "cpu" / "launch.cc", (), "").key


def test_cuda_architectures_are_chosen_by_the_variable(compiler, monkeypatch):
    with_nvcc = dataclasses.replace(compiler, nvcc="nvcc")
    monkeypatch.setenv("KERAS_DYNFILTER_CUDA_ARCHITECTURES", "75;86")
    command = " ".join(with_nvcc.cuda(pathlib.Path("a.cu")).command)
    for target in ("arch=compute_75,code=sm_75", "arch=compute_86,code=sm_86", "arch=compute_86,code=compute_86"):
        assert target in command


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
    monkeypatch.setattr(build.TensorFlow, "has_xla", False)  # not the subject of this test, and slow to compile
    # A permanent folder, so that the library is compiled only when a kernel changes. The folder has its own lock, so
    # that other tests do not wait.
    library = build.build(cache=build.cache_folder() / "portable").ops
    results = []
    for target in reversed(build.ISA_TARGETS):  # a target that this machine does not support falls back to the baseline
        done = python("-c", PRINT_SOFTMAX_FILTER, str(library), KERAS_DYNFILTER_CPU_ISA_TARGET=target)
        assert done.returncode == 0, done.stderr
        results.append(np.array(ast.literal_eval(done.stdout)))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(results[2], results[0], rtol=0, atol=2e-6)
    assert np.abs(results[0]).max() > 0.1
