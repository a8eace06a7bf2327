# SPDX-License-Identifier: Apache-2.0
"""Locates the C++ and CUDA sources, and computes their SHA-256."""

import functools
import hashlib
import pathlib
import re
from collections.abc import Iterable

FOLDER = pathlib.Path(__file__).resolve().parent / "cc"


def ops_version() -> str:
    """Returns a part of the SHA-256 of all C++ sources of the TensorFlow ops, which determine what the ops compute."""
    files = [*(FOLDER / "cpu").rglob("*.cc"), *(FOLDER / "tf").glob("*.cc"), *(FOLDER / "xla").glob("*.cc")]
    return digest(contents(files))[:16]


def digest(parts: Iterable[str]) -> str:
    """Returns the SHA-256 of a sequence of texts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part.encode()).digest())  # so that texts cannot run into each other
    return total.hexdigest()


def contents(files: Iterable[pathlib.Path]) -> list[str]:
    """Returns the names and SHA-256 of source files and of all files in `cc/` that they include, also indirectly."""
    seen: set[pathlib.Path] = set()
    queue = list(files)
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        queue += [FOLDER / name for name in _included_names(path) if (FOLDER / name).is_file()]
    return [f"{path.relative_to(FOLDER)} {sha256(path)}" for path in sorted(seen)]


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file."""
    return _read(path, path.stat().st_mtime_ns, path.stat().st_size)[0]


def _included_names(path):
    return _read(path, path.stat().st_mtime_ns, path.stat().st_size)[1]


@functools.lru_cache(maxsize=1024)
def _read(path, modified, size):
    """Returns the SHA-256 of a file and the names in its include directives. Most files belong to many units."""
    content = path.read_bytes()
    names = re.findall(r'^\s*#include "([^"]+)"', content.decode(), re.MULTILINE)
    return hashlib.sha256(content).hexdigest(), tuple(names)
