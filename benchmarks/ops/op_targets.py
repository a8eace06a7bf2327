# SPDX-License-Identifier: Apache-2.0
"""Targets of the ops on a CPU: bounds on their time relative to the time of another candidate."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.targets import Target

DEPTHWISE, COMPOSITE = ("TF depthwise",), ("composite, XLA", "slices, XLA")

# Op, note and shape of the case; pass; candidates to compare with (the fastest one counts); largest time ratio.
TARGETS = (
    ("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", DEPTHWISE, 0.6),
    ("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", COMPOSITE, 0.4),
    ("ddf2d", "3x3, mul", (4, 56, 56, 64), "forward+backward", COMPOSITE, 0.25),
    ("local_filter2d", "9x9", (16, 64, 64, 1), "forward", COMPOSITE, 1.0),
    ("local_filter2d", "9x9, softmax", (16, 64, 64, 1), "forward", COMPOSITE, 0.7),
)


def report(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each target, from the rows of `python -m benchmarks`."""
    ms = {(row["op"], row["note"], tuple(row["shape"]), row["pass"], row["candidate"]): row["ms"] for row in rows}
    lines = []
    for op, note, shape, direction, candidates, at_most in TARGETS:
        case = (op, note, shape, direction)
        ours, others = ms.get((*case, "ours")), [ms.get((*case, name)) for name in candidates]
        ratio = None if None in (ours, *others) else ours / min(others)
        size = "x".join(map(str, shape))
        target = Target(f"{op} ({size}; {note}), {direction}: ours / {' or '.join(candidates)}", at_most=at_most)
        lines.append(target.report(ratio))
    return lines
