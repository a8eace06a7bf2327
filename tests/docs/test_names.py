# SPDX-License-Identifier: Apache-2.0
"""Checks that every name in a code span of the documentation occurs in the code."""

import re

import pytest

from tests.support import pages
from tests.support.paths import ROOT

TESTED = ("benchmarks", "custom_ops", "examples", "export", "keras_dynfilter", "release")
SOURCES = (*TESTED, "tests/custom_ops", "tests/fuzz", "tests/support")
FILES = ("Makefile", "pyproject.toml", "setup.py", "mkdocs.yml", ".ci/run")
SUFFIXES = {".py", ".h", ".cc", ".cu", ".cuh", ".inc"}
NAME = re.compile(r"[A-Za-z_][\w.]*(?:\(.*\))?(?:=.*)?")

# Names that occur in data files, that exports derive from the names in a model, or that other tools define.
FOREIGN = {
    *("x_train", "x_test", "y_train", "y_test", "test_videos"),
    *("output_1", "left_image", "arg_2d", "NAME_1", "image_height", "guide_height", "NAME_height"),
    *("CHECK", "CITATION", "cff"),
    *("DataParallel", "experimental_distribute_dataset", "multiprocessing", "spawn", "fork", "forkserver"),
    *("restartPolicy", "srun", "scontrol"),
    "set_denormal_as_zero",  # an option of onnxruntime
    "noatime",  # an option of file systems
}


@pytest.fixture(scope="module")
def words():
    """All words of the code, and of the names of its configuration files."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    text = " ".join([*FILES, *(path.read_text() for path in (*files, *(ROOT / name for name in FILES)))])
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_names_occur_in_the_code(page, words):
    for span in pages.spans(page):
        if NAME.fullmatch(span):
            unknown = set(re.findall(r"[A-Za-z_]\w{2,}", span)) - words - FOREIGN
            assert not unknown, f"{span}: {unknown} occurs nowhere in the code"


def test_foreign_names_are_in_the_documentation():
    text = "".join(page.read_text() for page in pages.PAGES)
    assert all(name in text for name in FOREIGN)
