# SPDX-License-Identifier: Apache-2.0
"""Writes files so that a reader, or a run that was killed, never finds half a file."""

import contextlib
import json
import os
import pathlib


@contextlib.contextmanager
def written_whole(path, suffix=""):
    """Yields the path of a temporary file next to `path`, and renames this file to `path` when the block has ended.

    A process that is killed inside the block leaves `path` as it was before.

    Args:
        path: The file to write.
        suffix: Text after `.part` in the name of the temporary file, for writers that infer the format from the name.
    """
    path = pathlib.Path(path)
    part = path.with_name(f"{path.name}.part{suffix}")
    yield part
    with open(part, "rb+") as file:
        os.fsync(file.fileno())  # before the renaming: otherwise a power cut could leave the name without the content
    os.replace(part, path)


def write_json(path, content):
    """Writes `content` as JSON."""
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
