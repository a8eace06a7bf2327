# SPDX-License-Identifier: Apache-2.0
"""Draws and applies changes of the bytes of a file."""

import random

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63)


def draw(random: random.Random, most: int = 4) -> list:
    """Draws up to `most` changes: a kind, a place, and a value. A place counts in millionths of the length."""
    changes = []
    for _ in range(random.randint(1, most)):
        kind = random.choice(("flip", "flip", "set", "number", "delete", "copy", "cut"))
        value = {
            "flip": lambda: random.randrange(8),
            "set": lambda: random.randrange(256),
            "number": lambda: [random.choice((1, 2, 4, 8)), random.choice(("big", "little")), random.choice(NUMBERS)],
            "delete": lambda: random.choice((1, 1, 2, 4, 16, 100)),
            "copy": lambda: [random.randrange(1_000_000), random.choice((1, 4, 16, 64, 1000))],
            "cut": lambda: 0,
        }[kind]()
        changes.append([kind, random.randrange(1_000_000), value])
    return changes


def apply(content: bytes, changes: list) -> bytes:
    """Returns the changed content."""
    data = bytearray(content)
    for kind, place, value in changes:
        if not data:
            break
        at = place * len(data) // 1_000_000
        if kind == "flip":
            data[at] ^= 1 << value
        elif kind == "set":
            data[at] = value
        elif kind == "number":
            size, order, number = value
            data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, order)
        elif kind == "delete":
            del data[at : at + value]
        elif kind == "copy":
            begin = value[0] * len(data) // 1_000_000
            data[at:at] = data[begin : begin + value[1]]
        elif kind == "cut":
            del data[at:]
    return bytes(data)
