# SPDX-License-Identifier: Apache-2.0
"""Checks that every command in the README and in the site exists and accepts the options that the page gives it."""

import functools
import importlib
import importlib.util
import io
import re
import runpy
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout

import pytest

from tests.support import pages
from tests.support.paths import ROOT

DEPLOY = ROOT / "examples/deploy"  # contains the C++ program that pages compile and run
PAGES = [page for page in pages.PAGES if pages.commands(page)]


@functools.cache
def help_of(module: str) -> str:
    """Returns what `python -m module --help` prints."""
    output = io.StringIO()
    arguments, sys.argv = sys.argv, [module, "--help"]
    try:
        with redirect_stdout(output), warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package.*", RuntimeWarning)
            runpy.run_module(module, run_name="__main__")
    finally:
        sys.argv = arguments
    assert stop.value.code in (0, None), f"python -m {module} --help ends with {stop.value.code}"
    return output.getvalue()


def options(words: list[str]) -> list[str]:
    """Returns the names of the options among the words of a command."""
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def check_module(words: list[str]) -> None:
    """Checks `python -m`: the help lists the options, and the parser accepts the values.

    Commands with a placeholder such as FILE are not parsed.
    """
    module, *rest = words
    for option in options(rest):
        assert re.search(rf"{option}\b(?!-)", help_of(module)), f"python -m {module} has no option {option}"
    help_of(module)
    if importlib.util.find_spec(module).submodule_search_locations is not None:
        module += ".__main__"
    parse = getattr(importlib.import_module(module), "parse", None)
    if parse is not None and not any(re.search(r"\b[A-Z]{4,}\b", word) for word in rest):
        with redirect_stderr(io.StringIO()) as error:
            try:
                parse(rest)
            except SystemExit:
                pytest.fail(f"python -m {' '.join(words)}: {error.getvalue()}")


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+)(?: [\w-]+)*:(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [word for word in words if "=" not in word]
    assert set(named) <= set(targets), f"make {' '.join(words)}: the targets are {targets}"


def check_pip(words: list[str]) -> None:
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = ", section, re.MULTILINE)
    assert words[0] == "install"
    for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(extras)


def check(words: list[str]) -> None:
    """Checks one command, given as its words."""
    program, *rest = words
    if program == "python" and rest[0] == "-m":
        check_module(rest[1:])
    elif program == "python" and rest[0] == "-c":
        compile(rest[1], "command", "exec")
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"
    elif program == "make":
        check_make(rest)
    elif program == "pip":
        check_pip(rest)
    elif program == ".ci/run":
        assert (ROOT / program).is_file()
    elif program == "g++":
        sources = [word for word in rest if word.endswith(".cc")]
        assert sources and all((DEPLOY / source).is_file() for source in sources), f"{words}: no such source file"
    elif program.startswith("./"):
        assert (DEPLOY / program).with_suffix(".cc").is_file(), f"{program} has no source file"
    elif re.match("[A-Z_]+=", program):
        if rest and "$(" not in program:  # a command with a variable of its own
            check(rest)
    else:
        assert program in ("cd", "export", "ln"), f"this test does not know the command {words}"


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_commands_exist(page):
    for words in pages.commands(page):
        check(words)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_options_in_the_text_exist(page):
    """Each option in a code span is an option of one of the commands in the documentation."""
    modules = {words[2] for other in PAGES for words in pages.commands(other) if words[:2] == ["python", "-m"]}
    modules.add("examples.deploy.run")
    for span in pages.spans(page):
        if span.startswith("--"):
            for option in options(span.split()):
                assert any(re.search(rf"{option}\b(?!-)", help_of(module)) for module in modules), option


def test_the_synopsis_of_the_export_command_lists_the_options_of_its_parser():
    """The options and the names of their values in the guide are those of `--help`, without their order."""
    (synopsis,) = [
        block.text
        for block in pages.blocks(pages.DOCS / "guide/export.md", "text")
        if block.text.startswith("keras-dynfilter-export ")
    ]
    option = r"(--[a-z][a-z-]*)(?: ([A-Z][\w.=]*))?"
    documented = set(re.findall(option, synopsis))
    parsed = set(re.findall(rf"^  (?:-h, )?{option}", help_of("keras_dynfilter.export"), re.MULTILINE))
    assert documented == parsed - {("--help", "")}
    assert all(usage in synopsis for usage in ("keras-dynfilter-export MODEL [", "--set NAME=VALUE ...]"))


@pytest.mark.parametrize(
    "wrong",
    [
        "make tests",
        "python -m benchmarks --fast",
        "python -m benchmarks --op dynamic_filter",
        "python -m examples.experiments.dfn.moving_mnist --recipe fast",
        "python -m benchmarks.ops.nothing",
        "python examples/nothing.py",
        "pip install '.[everything]'",
        "conda install keras_dynfilter",
        "g++ -O2 nothing.cc -o nothing",
        "./nothing model.onnx",
    ],
)
def test_wrong_commands_are_found(wrong):
    with pytest.raises((AssertionError, ImportError, pytest.fail.Exception)):
        check([word.strip("'") for word in wrong.split()])
