# SPDX-License-Identifier: Apache-2.0
"""Reads the Markdown pages of the repository: code blocks, code spans, links, headings."""

import dataclasses
import pathlib
import re
import shlex

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
ROOT_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
ROOT_PAGES += [ROOT / "examples/deploy/README.md"]
PAGES = ROOT_PAGES + sorted(DOCS.rglob("*.md"))

_FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]+)\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced code block: its language, its text, and the line of the page where the text starts."""

    language: str
    text: str
    line: int


def name(page: pathlib.Path) -> str:
    """Returns the path of a page relative to the root, which is also the id of its tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: pathlib.Path, *languages: str) -> list[Block]:
    """Returns the code blocks of a page in the given languages."""
    text = page.read_text()
    all_blocks = [
        Block(match[2].strip(), match[3], text.count("\n", 0, match.start()) + 2) for match in _FENCE.finditer(text)
    ]
    return [block for block in all_blocks if block.language in languages]


def prose(page: pathlib.Path) -> str:
    """Returns the text of a page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def spans(page: pathlib.Path) -> list[str]:
    """Returns the code spans of a page, without line breaks."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(page))]


def links(page: pathlib.Path) -> list[str]:
    """Returns the targets of all links and images of a page."""
    return _LINK.findall(_SPAN.sub("", prose(page)))


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors of the headings of a page, as GitHub and the site form them."""
    page_anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        page_anchors.add(re.sub(r"[-\s]+", "-", words))
    return page_anchors


def commands(page: pathlib.Path) -> list[list[str]]:
    """Returns the shell commands of a page as lists of words: from shell blocks, and from code spans."""
    lines = []
    for block in blocks(page, "sh"):
        lines += block.text.replace("\\\n", " ").splitlines()
    starts = ("python -m ", "make ", "pip install ", ".ci/")
    lines += [span for span in spans(page) if span.startswith(starts)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]
