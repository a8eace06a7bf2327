# SPDX-License-Identifier: Apache-2.0
"""The page of the project on a package index: it holds no relative links, and leads to the repository."""

import pytest

from release import project_page
from tests.support import pages

README = pages.ROOT_PAGES[0]
REPOSITORY = "https://example.org/owner/name"


def links(text, tmp_path):
    (tmp_path / "page.md").write_text(text)
    return pages.links(tmp_path / "page.md")


def test_all_links_of_the_readme_become_absolute(tmp_path):
    text = project_page.description(README.read_text(), REPOSITORY, "v1")
    before, after = pages.links(README), links(text, tmp_path)
    assert len(after) == len(before) and any(not link.startswith("https://") for link in before)
    assert all(link.startswith("https://") for link in after)
    assert f"{REPOSITORY}/raw/v1/docs/images/steerable.png" in after
    assert f"{REPOSITORY}/blob/v1/docs/papers/dfn.md#steerable-filters" in after


def test_the_rest_of_the_readme_does_not_change(tmp_path):
    text = project_page.description(README.read_text(), REPOSITORY, "v1")
    for view in ("raw", "blob"):
        text = text.replace(f"{REPOSITORY}/{view}/v1/", "")
    assert text == README.read_text()


def test_without_a_repository_the_text_of_the_links_remains(tmp_path):
    text = project_page.description(README.read_text(), "", "v1")
    assert not [link for link in links(text, tmp_path) if not link.startswith("https://")]
    assert "Install describes all options" in text and "images/steerable.png" not in text
    assert project_page.addresses("", "v1") == {}


@pytest.mark.parametrize(
    "markdown, expected",
    [
        ("[a](b.md)", f"[a]({REPOSITORY}/blob/v1/b.md)"),
        ("![a [b] c](d.png)", f"![a [b] c]({REPOSITORY}/raw/v1/d.png)"),
        ("[`code`](b.md#c), [d](e)", f"[`code`]({REPOSITORY}/blob/v1/b.md#c), [d]({REPOSITORY}/blob/v1/e)"),
        ("[a](https://b.org/c) [d](#e)", "[a](https://b.org/c) [d](#e)"),
        ("```python\nf[0](x)\n```\n[a](b)", f"```python\nf[0](x)\n```\n[a]({REPOSITORY}/blob/v1/b)"),
    ],
)
def test_links(markdown, expected):
    assert project_page.description(markdown, REPOSITORY, "v1") == expected


def test_the_addresses_lead_to_files_of_the_repository():
    addresses = project_page.addresses(REPOSITORY, "v1")
    assert addresses["Repository"] == REPOSITORY
    for address in addresses.values():
        assert address.startswith(REPOSITORY)
        path = address.partition("/blob/v1/")[2]
        assert not path or (README.parent / path).is_file(), path
