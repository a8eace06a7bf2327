# SPDX-License-Identifier: Apache-2.0
"""Tables 1 and 2 of the filter repository paper, ours beside the paper's, what was aimed at, and a figure."""

import dataclasses

import numpy as np

import tables
from keras_dynfilter import visualize


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network of the tables.

    Attributes:
        title: For tables.
        arguments: Of `models.repository_mnist`; None: the baseline.
        paper: Accuracies of the paper in percent, after epoch 1 and after epoch 20.
    """

    title: str
    arguments: dict | None
    paper: tuple


VARIANTS = {
    "baseline": Variant("baseline", None, (95.23, 98.25)),
    "n5": Variant("n_enc 5, s 5", dict(n_enc=5, s=5), (95.85, 98.34)),
    "n10": Variant("n_enc 10, s 5", dict(n_enc=10, s=5), (95.94, 98.45)),
    "n20": Variant("n_enc 20, s 5", dict(n_enc=20, s=5), (97.53, 99.10)),
    "s2": Variant("n_enc 20, s 2", dict(n_enc=20, s=2), (97.11, 98.55)),
    "s10": Variant("n_enc 20, s 10", dict(n_enc=20, s=10), (97.29, 98.92)),
}
TABLES = {1: ("baseline", "n5", "n10", "n20"), 2: ("baseline", "s2", "n20", "s10")}


def summarize(cells):
    """By variant: accuracies in percent, after the first and the last epoch, by epoch, and with others' filters.

    Args:
        cells: What is known of the finished cells, as dicts.
    """
    summary = {}
    for variant, runs in tables.by_variant(cells, VARIANTS).items():
        curves = np.array([[epoch["test_accuracy"] for epoch in run["history"]] for run in runs])
        summary[variant] = {
            "title": VARIANTS[variant].title,
            "parameters": runs[0]["parameters"],
            "seeds": [run["seed"] for run in runs],
            "epochs": curves.shape[1],
            "first": tables.spread(curves[:, 0]),
            "last": tables.spread(curves[:, -1]),
            "swapped": None if runs[0]["swapped"] is None else tables.spread([run["swapped"] for run in runs]),
            "by_epoch": curves.tolist(),
            "minutes": float(np.mean([run["training_seconds"] for run in runs])) / 60,
        }
    return summary


def check_targets(summary):
    """What was aimed at, and whether it was reached: a list of dicts of `target`, `found` and `met`.

    Targets of which a variant is missing are left out.
    """

    def mean(variant, when):
        return summary[variant][when]["mean"]

    lines = []
    if "n20" in summary:
        for when, name, least in (("last", "the last epoch", 99.1), ("first", "epoch 1", 97.5)):
            found = mean("n20", when)
            lines.append((f"n_enc 20, s 5: at least {least} % after {name}", f"{found:.2f} %", found >= least))
    if {"n20", "baseline"} <= set(summary):
        found = mean("n20", "last") - mean("baseline", "last")
        lines.append(("baseline at least 0.5 points below", f"{found:+.2f}", found >= 0.5))
    if set(TABLES[1]) <= set(summary):
        found = [mean(variant, "last") for variant in TABLES[1]]
        shown = " < ".join(f"{value:.2f}" for value in found)
        lines.append(("baseline < n_enc 5 < 10 < 20", shown, found == sorted(found)))
    return tables.judge(lines, "target", "met")


def markdown(summary, targets):
    """Both tables and the targets as Markdown."""
    parts = []
    for number, variants in TABLES.items():
        rows = [_row(variant, summary[variant]) for variant in variants if variant in summary]
        if rows:
            head = ["", "parameters", "seeds", "epoch 1", "paper", "last epoch", "paper, epoch 20", "others' filters"]
            parts.append(f"Table {number}: test accuracy in percent\n\n{tables.markdown(head, rows)}")
    return "\n".join(parts) + tables.judged("Targets, of the means", targets, ("met", "MISSED"))


def _row(variant, figures):
    first, last = VARIANTS[variant].paper
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        str(len(figures["seeds"])),
        tables.text(figures["first"]),
        f"{first:.2f}",
        f"{tables.text(figures['last'])} ({figures['epochs']})",
        f"{last:.2f}",
        tables.text(figures["swapped"]),
    ]


def figure(summary):
    """Test accuracy by epoch: means, and from the worst to the best seed; the paper's two points beside them."""
    drawn = visualize.new_figure(11, 4.5)
    for axis, (number, variants) in zip(drawn.subplots(1, 2, sharey=True), TABLES.items()):
        for color, variant in enumerate(variants):
            if variant not in summary:
                continue
            curves = np.array(summary[variant]["by_epoch"])
            tables.draw_curves(axis, curves, summary[variant]["title"], f"C{color}")
            axis.plot((1, 20), VARIANTS[variant].paper, "x", color=f"C{color}")
        axis.set(title=f"Table {number}", xlabel="epoch (crosses: the paper)")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    drawn.axes[0].set(ylabel="test accuracy (%)")
    return drawn
