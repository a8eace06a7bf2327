# SPDX-License-Identifier: Apache-2.0
"""Checks HDF5 files of weights from unknown sources: every array must be in the file itself, and must fit in memory."""

import math
from typing import Any

import h5py

from keras_dynfilter.untrusted import memory


def check(file: Any, name: str) -> None:
    """Checks all groups and arrays of an HDF5 file.

    Args:
        file: The path, or an open binary file.
        name: Name of the file, for error texts.

    Raises:
        ValueError: The file is damaged, an array or a group is in another file, or the arrays declare more than half of
            the available memory.
        OSError: The file cannot be read, or is not an HDF5 file.
    """
    total, seen = 0, set()
    with h5py.File(file, "r") as root:
        waiting = [root]
        while waiting:
            group = waiting.pop()
            for key in group:
                link = group.get(key, getclass=True, getlink=True)
                if link is not h5py.HardLink:
                    raise ValueError(f"Expected {name} to hold its arrays. Received: {key!r}, a link ({link.__name__})")
                value = group[key]
                if isinstance(value, h5py.Group):
                    place = h5py.h5o.get_info(value.id).addr
                    if place not in seen:  # a group may be linked from inside itself
                        seen.add(place)
                        waiting.append(value)
                elif isinstance(value, h5py.Dataset):
                    if value.external or value.is_virtual:
                        raise ValueError(f"Expected {name} to hold its arrays. Received: {key!r}, kept in another file")
                    total += math.prod(value.shape or ()) * value.dtype.itemsize
    memory.check(total, f"the arrays of {name}")
