# SPDX-License-Identifier: Apache-2.0
"""Copies the files of the checkout, as they would be committed, and builds distributions of a copy."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

REPOSITORY = "https://example.org/owner/name"
# Builds without TensorFlow, as pip's isolated builds do.
BUILD = """
import sys, importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest)
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def files() -> list[str]:
    """Returns the paths of the files and links of the checkout that git does not ignore, or skips the test."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0 or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split() if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


def copy(target: pathlib.Path, links: bool = True) -> None:
    """Copies the checkout, with or without its links."""
    for name in files():
        if links or not (ROOT / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name, follow_symlinks=False)


def build(kind: str, source: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Builds a distribution without a compiler. Returns its path.

    Args:
        kind: `"wheel"` or `"sdist"`.
        source: The folder of a copy.
        output: The folder of the distribution.
    """
    pytest.importorskip("setuptools")
    variables = {"PATH": "/nowhere", "PYTHONWARNINGS": "ignore", "KERAS_DYNFILTER_REPOSITORY": REPOSITORY}
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(output)]
    done = subprocess.run(command, cwd=source, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return output / done.stdout.split()[-1]
