# SPDX-License-Identifier: Apache-2.0
"""Tests `python -m keras_dynfilter.info`: printed versions and implementations, exit status, arguments."""

import re

import pytest
import tensorflow as tf

from keras_dynfilter import info
from keras_dynfilter.ops import backends
from keras_dynfilter.ops.backends import library as library_module
from keras_dynfilter.ops.backends import scope
from keras_dynfilter.ops.backends.library import Library


def test_report_of_composite(python):
    done = python("-m", "keras_dynfilter.info", KERAS_DYNFILTER_IMPLEMENTATION="composite")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]
    reason = "the environment variable KERAS_DYNFILTER_IMPLEMENTATION"
    assert ["tensorflow", tf.version.VERSION] in lines
    assert ["environment", "KERAS_DYNFILTER_IMPLEMENTATION=composite"] in lines
    assert ["implementation", f"composite, set by {reason}"] in lines
    for op in backends.OPS:
        assert [op, f"composite, because {reason} asks for it"] in lines


def test_unknown_implementation(python):
    done = python("-m", "keras_dynfilter.info", KERAS_DYNFILTER_IMPLEMENTATION="nativ")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tensorflow  " in done.stdout
    assert "none: Expected `KERAS_DYNFILTER_IMPLEMENTATION` to be one of" in done.stdout


def test_composite_does_not_load_the_library(monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, "composite")
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("the library was loaded"))
    assert info.main([]) == 0
    assert "ddf2d                     composite, because the environment variable" in capsys.readouterr().out


@pytest.mark.parametrize(
    "library, requested, status, text",
    [
        (Library(reason="no compiler"), "auto", 0, "composite, because the compiled ops are not available: "),
        (Library(reason="no compiler"), "native", 1, "none: .* asks for the native ops, .* not available: no compiler"),
        (Library(ops=object(), xla_reason="too old"), "auto", 0, "jit_compile  .* supports_jit=False: too old"),
        (Library(ops=object()), "auto", 0, "CUDA kernels  +no, "),
        (Library(ops=object(), cuda=True), "auto", 0, "CUDA kernels  +yes"),
        (Library(ops=object(), paths=("/a.so",), notes=("no nvcc",)), "auto", 0, "library  +/a.so\nnote  +no nvcc"),
    ],
)
def test_report_of_missing_parts(library, requested, status, text, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: library)
    assert info.main([]) == status
    assert re.search(text, capsys.readouterr().out)


@pytest.mark.parametrize("requested, implementation", [("auto", "composite"), ("native", "native")])
def test_report_with_a_gpu_and_no_cuda_kernels(requested, implementation, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: Library(ops=object()))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert info.main([]) == 0
    out = capsys.readouterr().out
    for op, has_gpu_kernel in backends.OPS.items():
        choice = implementation if has_gpu_kernel else "composite, because its compiled kernel runs on CPUs only"
        assert re.search(rf"^{op} +{choice}", out, re.MULTILINE)


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), (["--verbose"], 2)])
def test_arguments(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("the library was loaded"))
    with pytest.raises(SystemExit) as stop:
        info.main(arguments)
    assert stop.value.code == status
    assert "python -m keras_dynfilter.info" in "".join(capsys.readouterr())
