# SPDX-License-Identifier: Apache-2.0
"""Tests how a row of the table of versions follows from results of tests, and that the documented table is complete."""

import re

import pytest

from keras_dynfilter import environment
from tests.support import compatibility, pages
from tests.support.paths import ROOT

PAGE = pages.DOCS / "start/compatibility.md"
TOY = """
import pytest

def test_good():
    pass

@pytest.mark.parametrize("n", range(2))
def test_half(n):
    if n:
        pytest.skip("has no half")

def test_missing():
    pytest.skip("there is no package")

def test_wrong():
    assert False

@pytest.fixture
def broken():
    raise OSError

def test_broken(broken):
    pass

@pytest.fixture
def left_behind():
    yield
    raise OSError

def test_left_behind(left_behind):
    pass
"""


def test_cells(tmp_path, monkeypatch):
    """A column is `yes` only if its tests ran and passed; every other cell has a reason."""
    (tmp_path / "test_toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    names = ("good", "half", "missing", "wrong", "broken", "left_behind")
    outcomes = compatibility.Outcomes({**{name: (f"test_toy.py::test_{name}",) for name in names}, "none": ("none",)})
    pytest.main(["-q", "--rootdir=.", "-p", "no:cacheprovider", "-c", "/dev/null", "test_toy.py"], plugins=[outcomes])
    assert {column: outcomes.cell(column) for column in outcomes.tests} == {
        "good": "yes",
        "half": "partly",
        "missing": "no",
        "wrong": "fails",
        "broken": "fails",
        "left_behind": "fails",
        "none": "not run",
    }
    assert list(outcomes.reasons()) == [
        "half: partly: has no half",
        "missing: no: there is no package",
        *(f"{name}: fails: test_toy.py::test_{name}" for name in ("wrong", "broken", "left_behind")),
        "none: not run: no test was found",
    ]


def test_the_named_tests_exist():
    """pytest refuses missing tests, too, but only when another TensorFlow is tested."""
    for file, function in {tuple(re.split(r"::|\[", id)[:2]) for ids in compatibility.TESTS.values() for id in ids}:
        assert f"\ndef {function}(" in (ROOT / file).read_text()


@pytest.fixture(scope="module")
def rows():
    """The rows of the documented table, as dicts from column to cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    header = lines.index([*compatibility.COLUMNS])
    return [dict(zip(compatibility.COLUMNS, line)) for line in lines[header + 2 : lines.index([""], header)]]


def test_documented_cells_are_words_that_the_command_prints(rows):
    results = set(compatibility.COLUMNS) - set(compatibility.VERSIONS)
    assert all(row[column] in compatibility.CELLS for row in rows for column in results)
    assert not any("fails" in row.values() for row in rows)


@pytest.mark.parametrize("package", ["TensorFlow", "Keras"])
def test_tested_versions_have_a_row(package, rows):
    """The first and the last version of each range that the import accepts without a warning are in the table."""
    in_table = {".".join(re.findall(r"\d+", row[package])[:2]) for row in rows if row["ops"] == "yes"}
    for first, last in environment.TESTED[package]:
        assert {first, last} <= in_table
    assert all(
        any(
            environment.minor(first) <= environment.minor(version) <= environment.minor(last)
            for first, last in environment.TESTED[package]
        )
        for version in in_table
    )
