# SPDX-License-Identifier: Apache-2.0
"""Writes a file or a folder so that a failure leaves the earlier file or folder unchanged."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import filelock

LOCK, EARLIER = "keras_dynfilter.lock", "earlier"
LONGEST = 100  # characters of the name that the temporary folder repeats; file systems limit names to 255 bytes


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
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name[:LONGEST]}.", dir=path.parent))
    try:
        with filelock.FileLock(folder / LOCK):  # the kernel releases it when the process ends, however it ends
            written = folder / path.name
            yield written
            _replace(written, path, folder / EARLIER)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    """Removes temporary folders in `parent` whose process was killed.

    If the process was killed after it had moved an earlier folder away, the earlier folder returns to its place.
    """
    with contextlib.suppress(OSError):  # such as a folder that cannot be listed; it only costs space
        for entry in list(os.scandir(parent)):
            folder = pathlib.Path(entry.path)
            if not entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            is_ours = (folder / LOCK).is_file() and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if not is_ours:
                continue
            with contextlib.suppress(OSError, filelock.Timeout), filelock.FileLock(folder / LOCK, timeout=0):
                for earlier in folder.glob(f"{EARLIER}/*"):
                    if not os.path.lexists(parent / earlier.name):
                        earlier.rename(parent / earlier.name)
                shutil.rmtree(folder, ignore_errors=True)
