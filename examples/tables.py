# SPDX-License-Identifier: Apache-2.0
"""Figures with their spread over the seeds, and Markdown tables of them."""

import numpy as np


def spread(values):
    """`{"mean", "deviation", "runs"}` of a value for each seed; the deviation of one is None."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "runs": [float(value) for value in values]}


def text(figures):
    """A mean and its deviation; nothing for None."""
    if figures is None:
        return ""
    deviation = "" if figures["deviation"] is None else f" ± {figures['deviation']:.2f}"
    return f"{figures['mean']:.2f}{deviation}"


def markdown(head, rows):
    """A table of lists of strings."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def judge(lines, claim="claim", holds="holds"):
    """`(text, what was found, whether it holds)` each as a dict, for JSON; the other arguments are the keys' names."""
    return [{claim: text, "found": found, holds: bool(verdict)} for text, found, verdict in lines]


def judged(title, claims, words=("holds", "DOES NOT HOLD")):
    """What `judge` returned as a table with a title; nothing if it is empty."""
    if not claims:
        return ""
    rows = [
        [text, found if isinstance(found, str) else f"{found:.2f}", words[0] if holds else words[1]]
        for text, found, holds in map(dict.values, claims)
    ]
    return f"\n{title}\n\n{markdown(['', 'found', ''], rows)}"


def by_variant(cells, variants):
    """The finished cells of each variant, by seed; variants without any are left out."""
    found = {
        variant: sorted((cell for cell in cells if cell["variant"] == variant), key=lambda cell: cell["seed"])
        for variant in variants
    }
    return {variant: runs for variant, runs in found.items() if runs}


def draw_curves(axis, curves, title, color=None):
    """Draws the mean of curves, `[seeds, epochs]`, from epoch 1, and the range between the lowest and the highest."""
    epochs = np.arange(1, curves.shape[1] + 1)
    (line,) = axis.plot(epochs, curves.mean(axis=0), label=title, color=color)
    axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.2)
