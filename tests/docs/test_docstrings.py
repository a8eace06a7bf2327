# SPDX-License-Identifier: Apache-2.0
"""Docstrings of the public API describe every argument, in the order of the signature, and begin with a sentence."""

import importlib
import inspect
import re

import pytest

MODULES = ("ops", "layers", "models", "inspection", "regularizers", "export")


def _public():
    for module in MODULES:
        loaded = importlib.import_module(f"keras_dynfilter.{module}")
        names = getattr(loaded, "__all__", ["Smoothness"])
        yield from (pytest.param(getattr(loaded, name), id=f"{module}.{name}") for name in names)


PUBLIC = [one for one in _public() if callable(one.values[0])]


def documented_arguments(docstring: str) -> list[str]:
    """Returns the names in the section `Args:` of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", docstring + "\n", re.MULTILINE)
    return re.findall(r"^    (\*{0,2}\w+):", section[1], re.MULTILINE) if section else []


DESCRIBED = [one for one in PUBLIC if documented_arguments(inspect.getdoc(one.values[0]) or "")]


@pytest.mark.parametrize("thing", DESCRIBED)
def test_the_arguments_are_those_of_the_signature(thing):
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    expected = [stars.get(one.kind, "") + one.name for one in inspect.signature(thing).parameters.values()]
    assert documented_arguments(inspect.getdoc(thing)) == expected


@pytest.mark.parametrize("thing", PUBLIC)
def test_the_docstring_begins_with_a_sentence(thing):
    first = inspect.getdoc(thing).split("\n\n")[0]
    assert first[0].isupper() and first.endswith((".", ":"))


def test_most_of_the_public_names_have_arguments():
    """Variants of a function that refer to its arguments have no section of their own."""
    assert len(DESCRIBED) > 0.7 * len(PUBLIC)


def test_arguments_are_found():
    assert documented_arguments(
        "Does.\n\nArgs:\n    a: First.\n        b: no\n    **c: Rest.\n\nReturns:\n    d: No."
    ) == [
        "a",
        "**c",
    ]
