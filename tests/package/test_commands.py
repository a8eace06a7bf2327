# SPDX-License-Identifier: Apache-2.0
"""`python -m keras_dynfilter.info`, as a user calls it."""

import re

import pytest
import tensorflow as tf

from keras_dynfilter import info
from keras_dynfilter.ops.backends import library as library_module
from keras_dynfilter.ops.backends import scope


def test_info_reports_a_wrong_implementation(python):
    done = python("-m", "keras_dynfilter.info", KERAS_DYNFILTER_IMPLEMENTATION="nativ")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tensorflow  " in done.stdout
    assert "none: Expected `KERAS_DYNFILTER_IMPLEMENTATION` to be one of" in done.stdout


def test_info_builds_nothing_for_composite(monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, "composite")
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("loaded the library"))
    assert info.main([]) == 0
    assert "ddf2d                     composite, because the environment variable" in capsys.readouterr().out


Library = library_module.Library


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
def test_info_names_what_is_missing(library, requested, status, text, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: library)
    assert info.main([]) == status
    assert re.search(text, capsys.readouterr().out)


@pytest.mark.parametrize("requested, filters", [("auto", "composite"), ("native", "native")])
def test_info_prints_the_choice_of_every_op(requested, filters, monkeypatch, capsys):
    monkeypatch.setenv(scope.VARIABLE, requested)
    monkeypatch.setattr(library_module, "load", lambda: Library(ops=object()))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert info.main([]) == 0
    out = capsys.readouterr().out
    for op in info.FILTER_OPS:
        assert re.search(rf"^{op} +{filters}, because ", out, re.MULTILINE)
    assert re.search("^project_and_pool +composite, because its compiled kernel runs on CPUs only", out, re.MULTILINE)


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), (["--verbose"], 2)])
def test_info_arguments(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(library_module, "load", lambda: pytest.fail("loaded the library"))
    with pytest.raises(SystemExit) as stop:
        info.main(arguments)
    assert stop.value.code == status
    assert "python -m keras_dynfilter.info" in "".join(capsys.readouterr())
