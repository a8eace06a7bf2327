# SPDX-License-Identifier: Apache-2.0
"""Tells how much memory this process can still use, so that a size can be refused before memory is allocated."""

import os
import pathlib
from collections.abc import Iterator

SHARE = 0.5  # of the available memory: the largest size that is allowed by default
GROUPS, OWN_GROUPS = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc/self/cgroup")
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def available() -> int:
    """Returns the bytes of memory that this process can use: the least of the machine's and of its control groups'."""
    return max(0, min([_of_the_machine(), *_of_the_groups()]))


def limit() -> int:
    """Returns the default limit for one use of memory in bytes: a share of the available memory."""
    return int(SHARE * available())


def in_words(size: float) -> str:
    """Returns a number of bytes with a readable unit, such as `1.5 GB`."""
    size = float(size)
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"


def check(size: int, what: str) -> None:
    """Raises a ValueError if `size` bytes exceed the default limit.

    Args:
        size: Number of bytes that are about to be allocated.
        what: Name of the file or value, for the error text.
    """
    largest = limit()
    if size > largest:
        expected = f"Expected {what} to need at most {in_words(largest)} of memory, half of what is available"
        raise ValueError(f"{expected}. Received: {in_words(size)}")


def _of_the_machine() -> int:
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_the_groups() -> Iterator[int]:
    """Yields the memory that is left in each control group of this process that has a limit (versions 1 and 2)."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit_file, usage_file = GROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit_file, usage_file = GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container, the name may be the one that the host knows; the folder is then the root itself.
        for folder in {root / name.lstrip("/"), root}:
            try:
                most, used = (folder / limit_file).read_text().strip(), int((folder / usage_file).read_text())
                statistics = dict(part.split() for part in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if most != "max":
                # The kernel takes pages of files that are not in use before it refuses memory.
                yield int(most) - used + int(statistics.get("inactive_file", 0))
