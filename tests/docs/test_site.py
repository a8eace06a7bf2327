# SPDX-License-Identifier: Apache-2.0
"""Checks that the site is complete: every page is in the navigation, and the API pages list every public name."""

import importlib
import re

import pytest

from tests.support import pages
from tests.support.paths import ROOT

MODULES = ("ops", "layers", "models", "regularizers", "inspection", "export")


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/]+\.md", navigation)
    assert sorted(listed) == sorted(page.relative_to(pages.DOCS).as_posix() for page in pages.DOCS.rglob("*.md"))


@pytest.mark.parametrize("module", MODULES)
def test_the_api_pages_list_every_public_name(module):
    listed = re.findall(r"^::: ([\w.]+)$", (pages.DOCS / f"api/{module}.md").read_text(), re.MULTILINE)
    public = importlib.import_module(f"keras_dynfilter.{module}").__all__
    assert sorted(listed) == sorted(f"keras_dynfilter.{module}.{name}" for name in public)


def test_the_papers_have_one_name():
    """A paper has the same name in the models, in the experiments and in the documentation."""
    papers = {page.stem for page in (pages.DOCS / "papers").glob("*.md")} - {"index"}
    assert papers == {"dfn", "ddf", "filter_repository"}
    for paper in papers:
        assert (ROOT / "keras_dynfilter/models" / paper).is_dir()
        assert (ROOT / "examples/experiments" / paper).is_dir()


def test_verdicts_are_words_of_the_legend():
    """The README's table and the claims of the paper pages use only the verdicts that docs/papers/index.md defines."""
    verdicts = set(re.findall(r"\*\*([a-z, ]+)\*\*", (pages.DOCS / "papers/index.md").read_text(), re.IGNORECASE))
    verdicts = {verdict.lower() for verdict in verdicts}
    assert {"holds", "does not hold", "undecided", "not run"} <= verdicts
    table = (ROOT / "README.md").read_text().partition("## Reproductions")[2].partition("\n## ")[0]
    used = re.findall(r"^\| \[.*\| ([a-z][a-z, ]*) \|$", table, re.MULTILINE)
    assert len(used) == table.count("| [")
    for page in (pages.DOCS / "papers").glob("*.md"):
        text = page.read_text()
        used += re.findall(r"^#+ .*\n\n\*\*(.+?)\.?\*\*", text, re.MULTILINE)
        for rows in re.findall(r"\| verdict \|\n.*\n((?:\|.*\n)+)", text):
            used += [row.split("|")[-2].strip() for row in rows.splitlines()]
    assert len(used) > 40
    assert {verdict.lower() for verdict in used} <= verdicts


@pytest.mark.parametrize("paper", ["dfn", "ddf", "filter_repository"])
def test_readme_and_paper_pages_have_the_same_numbers(paper):
    """Every number in the README's table of reproductions is also on the page that its row links to."""
    readme = (ROOT / "README.md").read_text()
    page = (pages.DOCS / f"papers/{paper}.md").read_text()
    rows = [row for row in readme.splitlines() if row.startswith("|") and f"papers/{paper}.md#" in row]
    assert rows
    for row in rows:
        for number in re.findall(r"\d+\.\d+", re.sub(r"\(.*?\)", "", row)):
            assert number in page, f"{number} of the row {row} is not in {paper}.md"
