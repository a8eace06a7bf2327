# SPDX-License-Identifier: Apache-2.0
"""Checks that every Python block of the README and of the site runs, and prints what the page says.

The blocks of a page share one namespace and run in the order of the page. A page states what a block prints in two
ways: as a comment in parentheses behind a `print`, as in `print(y.shape)  # (2, 16, 16, 8)`, or as a `text` block after
the line "It prints:".
"""

import re

import numpy as np
import pytest

from tests.support import ddf_resnet_reference, pages

PRETRAINED = "docs/guide/pretrained.md"
SLOW = ("docs/guide/export.md", "docs/guide/deployment.md", PRETRAINED)  # each writes and validates files
SITE = [pages.ROOT_PAGES[0], *sorted(pages.DOCS.rglob("*.md"))]
WITH_CODE = [page for page in pages.PAGES if pages.blocks(page, "python")]

COMMENTED_OUTPUT = re.compile(r"^\s*print\(.*\)  # (\(.*\))$", re.MULTILINE)
OUTPUT_BLOCK = re.compile(r"It prints:\n\n```text\n(.*?)```", re.DOTALL)


def _parameters():
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(page, id=pages.name(page), marks=marks[pages.name(page) in SLOW]) for page in WITH_CODE]


@pytest.mark.parametrize("page", _parameters())
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if pages.name(page) == PRETRAINED:  # the page starts from a file of the authors
        shapes = ddf_resnet_reference.state_shapes((3, 4, 6, 3), width=64, classes=1000)
        state = ddf_resnet_reference.random_state(shapes, np.random.default_rng(0))
        np.savez("ddf_mul_resnet50.npz", **{name: value.astype("float32") for name, value in state.items()})
    namespace = {"__name__": "page"}
    printed = ""
    for block in pages.blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, pages.name(page), "exec")
        exec(code, namespace)
        output = capsys.readouterr().out
        for expected in COMMENTED_OUTPUT.findall(block.text):
            assert expected in output.splitlines()
        printed += output
    for expected in OUTPUT_BLOCK.findall(page.read_text()):
        assert expected in printed


def test_the_readme_and_the_guide_have_code():
    assert {"README.md", "docs/start/quickstart.md", "docs/guide/layers.md"} <= set(map(pages.name, WITH_CODE))


def test_pages_state_outputs_in_both_ways():
    texts = [page.read_text() for page in WITH_CODE]
    assert any(map(COMMENTED_OUTPUT.search, texts)) and any(map(OUTPUT_BLOCK.search, texts))


@pytest.mark.parametrize("page", SITE, ids=pages.name)
def test_every_block_names_its_language(page):
    known = ("python", "sh", "text", "bibtex")
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert all(language.strip() in known for language in fences[::2]), fences[::2]
