# SPDX-License-Identifier: Apache-2.0
"""Tables 1 and 2 of the filter repository paper, ours beside the paper's, what was aimed at, and a figure."""

import dataclasses
import itertools

import numpy as np

from examples.experiments.core import statistics
from keras_dynfilter import inspection


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
    "n5": Variant("n_enc 5, s 5", dict(encoder_channels=5, base_filters=5), (95.85, 98.34)),
    "n10": Variant("n_enc 10, s 5", dict(encoder_channels=10, base_filters=5), (95.94, 98.45)),
    "n20": Variant("n_enc 20, s 5", dict(encoder_channels=20, base_filters=5), (97.53, 99.10)),
    "s2": Variant("n_enc 20, s 2", dict(encoder_channels=20, base_filters=2), (97.11, 98.55)),
    "s10": Variant("n_enc 20, s 10", dict(encoder_channels=20, base_filters=10), (97.29, 98.92)),
}
EPOCHS = 20  # of the paper's trainings
TABLES = {1: ("baseline", "n5", "n10", "n20"), 2: ("baseline", "s2", "n20", "s10")}


def summarize(cells):
    """By variant: accuracies in percent, after the first and the last epoch, by epoch, and with others' filters.

    Args:
        cells: What is known of the finished cells, as dicts.
    """
    summary = {}
    for variant, runs in statistics.by_variant(cells, VARIANTS).items():
        curves = np.array([[epoch["test_accuracy"] for epoch in run["history"]] for run in runs])
        summary[variant] = {
            **statistics.beginning(VARIANTS[variant].title, runs),
            "first": statistics.spread(curves[:, 0]),
            "last": statistics.spread(curves[:, -1]),
            "epochs": curves.shape[1],
            "swapped": None if runs[0]["swapped"] is None else statistics.spread([run["swapped"] for run in runs]),
            "by_epoch": curves.tolist(),
        }
    return summary


def check_claims(summary):
    """What was aimed at and what the paper claims, and whether it holds here: a list of claims as `tables` has them.

    Claims of which a variant is missing are left out. All are undecided if there were not 20 epochs: the learning rate
    falls with their number, so that the first one is another, too.
    """
    claims, last = [], {variant: figures["last"] for variant, figures in summary.items()}
    if "n20" in last:
        text = f"n_enc 20, s 5: at least 99.1 % after epoch {EPOCHS}"
        claims.append(statistics.reached(text, last["n20"], last["n20"]["mean"] >= 99.1))
    if {"n20", "baseline"} <= set(last):
        claims.append(statistics.above("baseline at least 0.5 points below", [last["n20"]], [last["baseline"]], 0.5))
    for less, more in itertools.pairwise(TABLES[1]):
        if {less, more} <= set(last):
            text = f"{VARIANTS[more].title} above {VARIANTS[less].title}"
            claims.append(statistics.above(text, [last[more]], [last[less]]))
    if {"n10", "s2"} <= set(last):
        text = "n_enc matters more than s: n_enc 20 gains more on 10 than s 5 on 2"  # both gain up to the same network
        claims.append(statistics.above(text, [last["s2"]], [last["n10"]]))
    if {"n5", "n20", "s2", "s10"} <= set(last):
        text = "n_enc matters more than s: n_enc 20 gains more on 5 than s 10 on 2"
        claims.append(statistics.above(text, [last["n20"], last["s2"]], [last["n5"], last["s10"]]))
    if "n20" in summary:
        first = summary["n20"]["first"]
        claims.append(statistics.reached("n_enc 20, s 5: at least 97.5 % after epoch 1", first, first["mean"] >= 97.5))
        if "baseline" in summary:
            text = "n_enc 20, s 5 above the baseline after epoch 1"
            claims.append(statistics.above(text, [first], [summary["baseline"]["first"]]))
    others = sorted({figures["epochs"] for figures in summary.values()} - {EPOCHS})
    if others:
        found = f"of {' and '.join(map(str, others))} epochs"
        claims = [{**each, "claim": f"{each['claim']} ({found})", "verdict": statistics.UNDECIDED} for each in claims]
    return claims


def markdown(summary, claims):
    """Both tables and the claims as Markdown."""
    parts = []
    for number, variants in TABLES.items():
        rows = [_row(variant, summary[variant]) for variant in variants if variant in summary]
        if rows:
            head = ["", "parameters", "seeds", "epoch 1", "paper", f"epoch {EPOCHS}", "paper", "others' filters"]
            parts.append(f"Table {number}: test accuracy in percent\n\n{statistics.markdown(head, rows)}")
    return "\n".join(parts) + statistics.judged("What was aimed at, and what the paper claims, in percent", claims)


def _row(variant, figures):
    first, last = VARIANTS[variant].paper
    epoch = "" if figures["epochs"] == EPOCHS else f" (epoch {figures['epochs']})"
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        str(len(figures["seeds"])),
        statistics.text(figures["first"]),
        f"{first:.2f}",
        statistics.text(figures["last"]) + epoch,
        f"{last:.2f}",
        statistics.text(figures["swapped"]),
    ]


def figure(summary):
    """Test accuracy by epoch: means, and from the worst to the best seed; the paper's two points beside them."""
    drawn = inspection.new_figure(11, 4.5)
    for axis, (number, variants) in zip(drawn.subplots(1, 2, sharey=True), TABLES.items()):
        for color, variant in enumerate(variants):
            if variant not in summary:
                continue
            curves = np.array(summary[variant]["by_epoch"])
            statistics.draw_curves(axis, curves, summary[variant]["title"], f"C{color}")
            axis.plot((1, EPOCHS), VARIANTS[variant].paper, "x", color=f"C{color}")
        axis.set(title=f"Table {number}", xlabel="epoch (crosses: the paper)")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    drawn.axes[0].set(ylabel="test accuracy (%)")
    return drawn
