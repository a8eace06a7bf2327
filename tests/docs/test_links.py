# SPDX-License-Identifier: Apache-2.0
"""Checks that the targets of links, the images and the paths in the documentation exist."""

import re

import pytest

from tests.support import pages
from tests.support.paths import ROOT

FOLDERS = "benchmarks|custom_ops|docs|examples|export|keras_dynfilter|notebooks|release|tests"
PATH = re.compile(rf"^(?:(?:{FOLDERS})/[\w./*-]*|[A-Z]+\.(?:md|cff)|pyproject\.toml|mkdocs\.yml|\.ci/run)$")


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_resolve(page):
    for target in pages.links(page):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.is_relative_to(ROOT) and linked.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in pages.anchors(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", sorted(pages.DOCS.rglob("*.md")), ids=pages.name)
def test_links_of_the_site_stay_in_the_site(page):
    for target in pages.links(page):
        if not re.match(r"https?://", target):
            linked = (page.parent / target.partition("#")[0]).resolve()
            assert linked.is_relative_to(pages.DOCS), f"{target}: the site does not contain it"


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_paths_exist(page):
    for span in pages.spans(page):
        if PATH.match(span):
            assert list(ROOT.glob(span)), f"{span}: there is no such file or folder"


def test_pictures_have_a_description_and_are_used():
    text = "".join(page.read_text() for page in pages.PAGES)
    assert not re.search(r"!\[\]\(", text)
    for picture in (pages.DOCS / "images").iterdir():
        assert f"images/{picture.name})" in text, f"{picture.name} is in no page"
