# SPDX-License-Identifier: Apache-2.0
"""Checks that code, options, JSON keys and documents contain no retired word. CONTRIBUTING.md has the glossary."""

import re

import pytest

from tests.support.paths import ROOT

FOLDERS = ("benchmarks", "custom_ops", "docs", "examples", "export", "keras_dynfilter", "tests")
SUFFIXES = {".py", ".md", ".h", ".cc", ".cu", ".cuh", ".inc", ".json", ".ipynb", ".toml", ".yml"}
FILES = [
    path
    for folder in (ROOT, *(ROOT / folder for folder in FOLDERS))
    for path in (folder.glob("*") if folder == ROOT else folder.rglob("*"))
    if path.suffix in SUFFIXES and path.name != "test_glossary.py" and "build" not in path.parts
]

# Pattern of a retired word -> what to use instead.
RETIRED = {
    r"\btwins?\b": "baseline",
    r"\bcomposed\b(?! of)": "composite",
    r"\bby=[\"'](?:grad|inputs|spatial|channel)[\"']": "wrt",
    r"\bn_enc\b(?!.{0,3} in the paper)": "encoder_channels",
    r"\boutput_maps=\d|self\.output_maps": "filters",
    r"\btap=[\"'](?:convolution|normalization)": "features_from",
    r"\bpath=[\"'](?:direct|shared|auto)": "algorithm",
    r"--path\b": "--algorithm",
    r"\bkWidth\b": "kWindowCols or kVecElems",
    r"\bMember\b|\bWeight::": "Derivative or FilterKind",
    r"--reach\b": "the word of the field: the largest motion, the largest disparity",
    r"\"cells\": \{|\bcells/": "runs",
    r"(?i)distance of the eyes": "inter-ocular distance",
    r"(?i)\breading maps\b|\bmaps of scores\b": "soft-argmax, heat maps",
    r"\bBiasedDDF2D\b": "DDF2D(use_bias=True, activation=...)",
    r"wide_dense\b|\bup_conv2d\b|\bUpConv2D\b|\bddf_replace\b|repository_parts": "a name that says what it is",
    r"\bspread\(|\bspread_over\b": "summarize_seeds or evenly_spaced",
    r"(?i)\b(?:above|incoming) gradient\b": "upstream gradient",
    r"\boracles?\b": "reference implementation",
}


@pytest.mark.parametrize("word", RETIRED, ids=lambda word: RETIRED[word].split()[0] + ": " + word[:20])
def test_retired_words_are_gone(word):
    pattern = re.compile(word)
    places = []
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(line):
                places.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not places, f"use {RETIRED[word]} in\n" + "\n".join(places)


def test_the_search_covers_the_tree():
    names = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {*FOLDERS, "README.md", "CONTRIBUTING.md"} <= names
    assert len(FILES) > 200


def test_the_glossary_has_a_dozen_words():
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w`(), =]+) \| ", section, re.MULTILINE)[1:]
    assert 10 <= len(rows) <= 16
