# SPDX-License-Identifier: Apache-2.0
"""Writes NPZ archives, correct ones and hostile ones with wrong headers, and members that are missing or foreign."""

import io
import random
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib import format as npy

HEADERS = (
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1024), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (0, 4611686018427387904), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<f4'), ('b', '<i8')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U1000000', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'shape': (1,)}",
    "[" * 200,
    "{" * 5000,
    "1",
    "",
)
NAMES = ("../../outside.npy", "/tmp/outside.npy", "a\\b.npy", "..", "", "notes.npy", "x" * 300, "0.npy")
DTYPES = ("<f4", "<f8", "<i4", "|u1", "<c8", "|b1", "<U3", "|S2", "<f2", ">f4")


def draw(random: random.Random, names: Sequence[str]) -> list:
    """Draws changes of the members of an archive."""
    changes = []
    for _ in range(random.randint(0, 2)):
        name = random.choice(names)
        changes.append(
            random.choice(
                (
                    ["drop", name, 0],
                    ["rename", name, random.choice(NAMES)],
                    ["repeat", name, 0],
                    ["header", name, random.choice(HEADERS)],
                    ["dtype", name, random.choice(DTYPES)],
                    ["shape", name, [random.choice((0, 1, 2, 3, 28, 32)) for _ in range(random.randrange(5))]],
                    ["zeros", name, random.choice((10, 1 << 16, 1 << 24))],
                    ["raw", name, random.choice(("", "no array", "\x93NUMPY"))],
                    ["store", name, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))],
                )
            )
        )
    return changes


def write(arrays: Mapping[str, np.ndarray], changes: Sequence) -> bytes:
    """Returns the content of an archive."""
    members = [[f"{name}.npy", _array(array), zipfile.ZIP_DEFLATED] for name, array in arrays.items()]
    by_name = {member[0]: member for member in members}
    for kind, name, value in changes:
        member = by_name.get(f"{name}.npy")
        if member is None or member not in members:
            continue
        if kind == "drop":
            members.remove(member)
        elif kind == "rename":
            member[0] = value
        elif kind == "repeat":
            members.append(list(member))
        elif kind == "header":
            member[1] = b"\x93NUMPY\x01\x00" + len(value).to_bytes(2, "little") + value.encode() + member[1][-64:]
        elif kind == "dtype":
            member[1] = _array(np.zeros(arrays[name].shape).astype(value))
        elif kind == "shape":
            member[1] = _array(np.zeros(value, arrays[name].dtype))
        elif kind == "zeros":
            member[1] = _array(np.zeros(value, np.uint8))
        elif kind == "raw":
            member[1] = value.encode("latin-1")
        elif kind == "store":
            member[2] = value
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content, method in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _array(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()
