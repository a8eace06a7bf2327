# SPDX-License-Identifier: Apache-2.0
"""What the ops are meant to reach on a CPU, as the time of ours over the time of another candidate."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bar:
    """Ours takes at most `most` of the time of `candidate`."""

    op: str
    note: str
    shape: tuple
    kind: str
    candidate: str
    most: float


BARS = (
    Bar("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", "TF depthwise", 0.6),
    Bar("ddf2d", "3x3, mul", (2, 200, 300, 256), "forward", "composed, XLA", 0.4),
    Bar("ddf2d", "3x3, mul", (4, 56, 56, 64), "forward+backward", "composed, XLA", 0.25),
    Bar("local_filter2d", "9x9", (16, 64, 64, 1), "forward", "composed, XLA", 1.0),
    Bar("local_filter2d", "9x9, softmax", (16, 64, 64, 1), "forward", "composed, XLA", 0.7),
)


def lines(rows):
    """One line per bar: the ratio found in `rows`, and whether the bar is met."""
    ms = {(row["op"], row["note"], tuple(row["shape"]), row["pass"], row["candidate"]): row["ms"] for row in rows}
    found = []
    for bar in BARS:
        key = (bar.op, bar.note, bar.shape, bar.kind)
        ours, other = ms.get((*key, "ours")), ms.get((*key, bar.candidate))
        text = f"{bar.op} ({'x'.join(map(str, bar.shape))}; {bar.note}), {bar.kind}: ours / {bar.candidate}"
        if ours is None or other is None:
            found.append(f"{text}: not measured, at most {bar.most:.2f}")
        else:
            verdict = "met" if ours <= bar.most * other else "MISSED"
            found.append(f"{text}: {ours / other:.2f}, at most {bar.most:.2f}: {verdict}")
    return found
