# SPDX-License-Identifier: Apache-2.0
"""Removes files of the cache that nobody needs: of interrupted builds, and files that were not used for long.

Only files with the names that the builder gives are removed, and only under their lock. A process that has loaded a
library keeps it: Linux frees the content of a removed file when no process uses it any more.
"""

import contextlib
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable

from . import sources
from .cache import PARTIAL, Cache, checksum_file, failure_file

DAY = 24 * 3600
UNUSED_DAYS = 60
# Finished files in the folder and in its subfolder of objects, without the endings of the files next to them.
_LIBRARY, _OBJECT = r"(?:lib)?keras_dynfilter_\w+-[0-9a-f-]+(?:\.so|\.dylib)?", r"[0-9a-f]{32}\.o"
_HEADERS = r"onnxruntime-[0-9.]+"
_ENDING = r"\.sha256|\.failed"


def remove_partial(kept: Cache, days: float = 0) -> None:
    """Removes the partial files and folders of builds that have ended.

    Args:
        kept: The cache. If it is read-only, it stays as it is.
        days: The number of days since the last change of a file that is removed.
    """
    pattern = re.compile(rf"({_LIBRARY}|{_OBJECT}|{_HEADERS})(?:{_ENDING})?{re.escape(PARTIAL)}\w+")
    for path in _files(kept):
        match = pattern.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if match and path.lstat().st_mtime <= time.time() - days * DAY:
                with kept.lock(path.with_name(match[1]), wait=False) as locked:
                    if locked:
                        _remove(path)


def remove_unused(kept: Cache) -> None:
    """Removes libraries and objects, with the files next to them, that no process has used for `UNUSED_DAYS` days.

    Libraries of the present sources stay. On a file system that does not record when files are read, all files stay.

    Args:
        kept: The cache. If it is read-only, it stays as it is.
    """
    pattern = re.compile(rf"({_LIBRARY}|{_OBJECT})(?:{_ENDING}|(\.log))?")
    with contextlib.suppress(OSError):
        if os.statvfs(kept.folder).f_flag & getattr(os, "ST_NOATIME", 0):  # macOS has no such flag
            return
    finished = set()
    for path in _files(kept):
        match = pattern.fullmatch(path.name)
        if match and f"-{sources.ops_version()}-" not in path.name:
            finished.add(path.with_name(f"{match[1]}.so" if match[2] else match[1]))
    for path in sorted(finished):
        with contextlib.suppress(OSError):
            # The checksum comes first: without it, nobody uses what is left.
            group = (checksum_file(path), path, failure_file(path), path.with_suffix(".log"))
            if _is_unused(group):
                with kept.lock(path, wait=False) as locked:
                    if locked and _is_unused(group):
                        for file in group:
                            file.unlink(missing_ok=True)


def _files(kept: Cache) -> list[pathlib.Path]:
    """Returns the entries of the folder and of its subfolder of objects; none if they cannot be changed."""
    entries: list[pathlib.Path] = []
    for folder in (kept.folder, kept.objects):
        if os.access(folder, os.W_OK):
            with contextlib.suppress(OSError):
                entries += folder.iterdir()
    return entries


def _is_unused(files: Iterable[pathlib.Path]) -> bool:
    """Returns whether nobody has written or read the files for `UNUSED_DAYS` days. Missing files do not count."""
    times = [0.0]
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            times += [status.st_mtime, status.st_atime]
    return max(times) < time.time() - UNUSED_DAYS * DAY


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
