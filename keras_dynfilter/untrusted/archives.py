# SPDX-License-Identifier: Apache-2.0
"""Opens ZIP archives from unknown sources, and refuses members that a reader should not see."""

import contextlib
import pathlib
import stat
import zipfile
from collections.abc import Iterator

from keras_dynfilter.untrusted import memory

ENCRYPTED = 0x1  # bit of `ZipInfo.flag_bits`


@contextlib.contextmanager
def opened_zip(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Opens a ZIP archive for reading, after checks of all its members.

    Raises:
        ValueError: `path` is not a regular file or not a ZIP archive, a member has a name that leaves the archive, is a
            link or a device, is encrypted or occurs twice, or the members unpack to more than half of the memory.
        OSError: The file cannot be read.
    """
    check_regular(path)
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises many types for damaged archives, OSError for wrong offsets
            raise ValueError(f"Expected {path} to be a ZIP archive. Received: {error}") from error
        with archive:
            _check_members(path, archive.infolist())
            yield archive


def check_regular(path: pathlib.Path) -> None:
    """Raises a ValueError if `path` is neither a regular file nor missing. A named pipe would block its reader."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        received = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"Expected {path} to be a file. Received: {received}")


def leaves_folder(name: str) -> bool:
    """Returns whether a relative path in a list or an archive may name a file outside of its folder."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or "\0" in name or pathlib.PureWindowsPath(name).drive != ""


def _check_members(path: pathlib.Path, members: list[zipfile.ZipInfo]) -> None:
    names = set()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if leaves_folder(member.filename):
            problem = "a name that leaves the archive"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "a link or a device"
        elif member.flag_bits & ENCRYPTED:
            problem = "encrypted"
        elif member.filename in names:
            problem = "a second member of this name"
        else:
            names.add(member.filename)
            continue
        raise ValueError(f"Expected {path} to hold plain files. Received: {member.filename!r}, {problem}")
    memory.check(sum(member.file_size for member in members), f"{path}, unpacked,")
