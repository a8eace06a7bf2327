# SPDX-License-Identifier: Apache-2.0
"""Writes a file or a folder so that a failure leaves the earlier file or folder unchanged."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def staged(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path. If the block ends without an exception, its file or folder replaces `path`.

    The temporary path is in a new folder next to `path`, on the same disk, so that the replacement is a rename. If the
    block raises, `path` stays unchanged. The new folder is removed in either case.

    Args:
        path: A file or a folder. Missing parent folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        written = folder / path.name
        yield written
        # A rename can replace a file but not a folder, so an earlier folder is moved away first.
        earlier = folder / "replaced" if path.is_dir() else None
        if earlier is not None:
            path.rename(earlier)
        try:
            written.replace(path)
        except OSError:
            if earlier is not None:
                earlier.rename(path)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
