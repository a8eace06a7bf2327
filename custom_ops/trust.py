# SPDX-License-Identifier: Apache-2.0
"""Checks that no other user can change a folder or a file of the cache.

The code of the libraries runs with all rights of the process that loads them. The rules are those of OpenSSH for its
files: the owner is this user or root, nobody else can write, and the same holds for all folders above. Of the folders
above, those with the sticky bit, such as /tmp, may be writable by all users: nobody can rename a folder of another user
there.
"""

import os
import pathlib
import stat


def reason_against_folder(folder: pathlib.Path) -> str:
    """Returns why other users could change the files of an existing folder, or `""` if they cannot."""
    real = pathlib.Path(os.path.realpath(folder))
    reason = _reason(real, real.stat(), _owners())
    for parent in real.parents:
        reason = reason or _reason(parent, parent.stat(), _owners() | _unmapped_owner(), is_parent=True)
    return reason


def reason_against_file(path: pathlib.Path) -> str:
    """Returns why other users could change a file in a folder that they cannot change, or `""` if they cannot.

    Raises:
        OSError: The file does not exist.
    """
    status = path.lstat()
    return _reason(path, status, _owners()) if stat.S_ISREG(status.st_mode) else f"{path} is not an ordinary file"


def _reason(path, status, owners, is_parent=False):
    if status.st_uid not in owners:
        return f"{path} belongs to another user ({_user_name(status.st_uid)})"
    if is_parent and status.st_mode & stat.S_ISVTX:
        return ""
    by_group = status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid)
    if by_group or status.st_mode & stat.S_IWOTH:
        return f"other users can write {path} (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _owners():
    return {0, os.geteuid()}


def _is_own_group(gid):
    """Returns whether the group has this user as its only member. Many systems create such a group for every user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _unmapped_owner():
    """Returns the user that the kernel shows in place of root in a container that does not map root, as a set."""
    try:
        mapped = pathlib.Path("/proc/self/uid_map").read_text().split()
        return set() if mapped[0] == "0" else {int(pathlib.Path("/proc/sys/kernel/overflowuid").read_text())}
    except (OSError, IndexError, ValueError):
        return set()


def _user_name(uid):
    import pwd  # does not exist on Windows, where nothing is built

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
