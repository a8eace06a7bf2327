# SPDX-License-Identifier: Apache-2.0
"""What the ops are meant to reach on a CPU, as the time of ours over the time of another candidate."""

import dataclasses

from benchmarks import timing


@dataclasses.dataclass(frozen=True)
class Bar:
    """Ours takes at most `most` of the time of the fastest of `candidates`."""

    op: str
    note: str
    shape: tuple
    kind: str
    candidates: tuple
    most: float


DEPTHWISE, COMPOSED = ("TF depthwise",), ("composed, XLA", "slices, XLA")

BARS = (
    Bar("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", DEPTHWISE, 0.6),
    Bar("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", COMPOSED, 0.4),
    Bar("ddf2d", "3x3, mul", (4, 56, 56, 64), "forward+backward", COMPOSED, 0.25),
    Bar("local_filter2d", "9x9", (16, 64, 64, 1), "forward", COMPOSED, 1.0),
    Bar("local_filter2d", "9x9, softmax", (16, 64, 64, 1), "forward", COMPOSED, 0.7),
)


def lines(rows):
    """One line per bar: the ratio found in `rows`, and whether the bar is met."""
    ms = {(row["op"], row["note"], tuple(row["shape"]), row["pass"], row["candidate"]): row["ms"] for row in rows}
    found = []
    for bar in BARS:
        key = (bar.op, bar.note, bar.shape, bar.kind)
        ours, others = ms.get((*key, "ours")), [ms.get((*key, name)) for name in bar.candidates]
        text = (
            f"{bar.op} ({'x'.join(map(str, bar.shape))}; {bar.note}), {bar.kind}: ours / {' or '.join(bar.candidates)}"
        )
        if None in (ours, *others):
            found.append(f"{text}: not measured, at most {bar.most:.2f}")
        else:
            ratio = ours / min(others)
            found.append(f"{text}: {ratio:.2f}, at most {bar.most:.2f}: {timing.verdict(ratio <= bar.most)}")
    return found
