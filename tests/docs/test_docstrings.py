# SPDX-License-Identifier: Apache-2.0
"""Checks that docstrings of the public API describe every argument in the order of the signature, and begin with a
sentence.
"""

import importlib
import inspect
import re

import pytest

MODULES = ("ops", "layers", "models", "inspection", "regularizers", "export")


def _public():
    for module in MODULES:
        loaded = importlib.import_module(f"keras_dynfilter.{module}")
        yield from (pytest.param(getattr(loaded, name), id=f"{module}.{name}") for name in loaded.__all__)


PUBLIC = [entry for entry in _public() if callable(entry.values[0])]


def documented_arguments(docstring: str) -> list[str]:
    """Returns the names in the section `Args:` of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", docstring + "\n", re.MULTILINE)
    return re.findall(r"^    (\*{0,2}\w+):", section[1], re.MULTILINE) if section else []


DESCRIBED = [entry for entry in PUBLIC if documented_arguments(inspect.getdoc(entry.values[0]) or "")]


@pytest.mark.parametrize("public", DESCRIBED)
def test_the_documented_arguments_equal_the_signature(public):
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(public).parameters.values()
    expected = [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]
    assert documented_arguments(inspect.getdoc(public)) == expected


@pytest.mark.parametrize("public", PUBLIC)
def test_the_docstring_begins_with_a_sentence(public):
    first = inspect.getdoc(public).split("\n\n")[0]
    assert first[0].isupper() and first.endswith((".", ":"))


def test_most_of_the_public_names_have_arguments():
    """A function without the section `Args:` takes no arguments, or refers to the arguments of another function."""
    assert len(DESCRIBED) > 0.7 * len(PUBLIC)


def test_arguments_are_read_from_the_section_args():
    assert documented_arguments(
        "Does.\n\nArgs:\n    a: First.\n        b: no\n    **c: Rest.\n\nReturns:\n    d: No."
    ) == [
        "a",
        "**c",
    ]
