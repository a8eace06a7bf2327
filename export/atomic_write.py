# SPDX-License-Identifier: Apache-2.0
"""Writes a file or a folder so that a failure leaves the earlier file or folder unchanged."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import filelock

LOCK, EARLIER = "keras_dynfilter.lock", "earlier"
MARK = ".keras_dynfilter-"  # in the names of temporary folders, before eight random characters
LONGEST = 40  # characters of the name that the temporary folder repeats; file systems limit names to 255 bytes


@contextlib.contextmanager
def staged(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path. If the block ends without an exception, its file or folder replaces `path`.

    The temporary path is in a new folder next to `path`, on the same disk, so that the replacement is a rename. If the
    block raises, `path` stays unchanged. The new folder is removed in either case. Only a process that is killed leaves
    it: the next call that writes to the same place removes it then.

    Args:
        path: A file or a folder. Missing parent folders are created.
    """
    path = path if path.name not in ("", "..") else path.resolve()
    for folder in (*reversed(path.parent.parents), path.parent):  # `mkdir(parents=True)` calls itself for each of them
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
    _remove_abandoned(path.parent)
    folder, lock = _locked_folder(path)
    try:
        with lock:
            written = folder / path.name
            yield written
            _replace(written, path, folder / EARLIER)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(path: pathlib.Path) -> tuple[pathlib.Path, Any]:
    """Makes a temporary folder next to `path`, and locks it. Returns the folder and the acquired lock.

    The kernel releases the lock when the process ends, however it ends.
    """
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name[:LONGEST]}{MARK}", dir=path.parent))
        lock = filelock.FileLock(folder / LOCK)
        try:
            held = lock.acquire()
            # Before the lock was held, another process may have taken the folder for an abandoned one.
            if (folder / LOCK).exists():
                return folder, held
        except FileNotFoundError:
            pass
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        lock.release()


def _replace(written: pathlib.Path, path: pathlib.Path, earlier: pathlib.Path) -> None:
    """Renames `written` to `path`. A rename cannot replace a folder, so an earlier folder is first moved away."""
    if not path.is_dir():
        written.replace(path)
        return
    earlier.mkdir()
    path.rename(earlier / path.name)
    try:
        written.replace(path)
    except BaseException:
        (earlier / path.name).rename(path)
        raise


def _remove_abandoned(parent: pathlib.Path) -> None:
    """Removes temporary folders in `parent` whose process was killed."""
    with contextlib.suppress(OSError):  # such as a folder that cannot be listed; it only costs space
        for entry in list(os.scandir(parent)):
            with contextlib.suppress(OSError, filelock.Timeout):  # in use, or removed by another process
                _remove_if_abandoned(entry)


def _remove_if_abandoned(entry: os.DirEntry) -> None:
    """Removes a folder if it is a temporary folder whose process was killed.

    If the process was killed after it had moved an earlier folder away, the earlier folder returns to its place.
    """
    if not entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return
    if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    folder = pathlib.Path(entry.path)
    if (folder / LOCK).is_file():
        with filelock.FileLock(folder / LOCK, timeout=0):
            for earlier in folder.glob(f"{EARLIER}/*"):
                target = folder.parent / earlier.name
                if not os.path.lexists(target):
                    earlier.rename(target)
            shutil.rmtree(folder, ignore_errors=True)
    elif re.search(re.escape(MARK) + r"\w{8}\Z", entry.name):
        folder.rmdir()  # Empty: the process was killed before it had a lock. A living process makes another folder.
