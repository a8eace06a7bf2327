# SPDX-License-Identifier: Apache-2.0
"""Makes tables 1 and 2 of the filter repository paper with our results, judges the claims, and draws a figure."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from examples.experiments.core import markdown as md
from examples.experiments.core import statistics
from examples.experiments.filter_repository.curves import draw_curves
from keras_dynfilter import inspection


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network of the tables.

    Attributes:
        title: Title in tables.
        arguments: Arguments of `models.repository_mnist`; None for the baseline.
        paper: Accuracies of the paper in percent, after epoch 1 and after epoch 20.
    """

    title: str
    arguments: dict[str, Any] | None
    paper: tuple[float, float]


def _generated(encoder_channels, base_filters, paper):
    title = f"{encoder_channels} features, {base_filters} base filters"
    return Variant(title, dict(encoder_channels=encoder_channels, base_filters=base_filters), paper)


VARIANTS = {
    "baseline": Variant("baseline", None, (95.23, 98.25)),
    "encoder5": _generated(5, 5, (95.85, 98.34)),
    "encoder10": _generated(10, 5, (95.94, 98.45)),
    "encoder20": _generated(20, 5, (97.53, 99.10)),
    "base2": _generated(20, 2, (97.11, 98.55)),
    "base10": _generated(20, 10, (97.29, 98.92)),
}
MAIN = "encoder20"  # the variant of both tables
EPOCHS = 20  # of each training in the paper
TABLES = {1: ("baseline", "encoder5", "encoder10", MAIN), 2: ("baseline", "base2", MAIN, "base10")}


def summarize(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns accuracies in percent by variant: first and last epoch, all epochs, and with the filters of other images.

    Args:
        runs: Descriptions of the finished runs.
    """
    summary = {}
    for variant, same in statistics.by_variant(runs, VARIANTS).items():
        curves = np.array([[epoch["test_accuracy"] for epoch in run["history"]] for run in same])
        swapped = None if same[0]["swapped"] is None else [run["swapped"] for run in same]
        summary[variant] = {
            **statistics.summarize_variant(VARIANTS[variant].title, same),
            "first": statistics.summarize_seeds(curves[:, 0]),
            "last": statistics.summarize_seeds(curves[:, -1]),
            "epochs": curves.shape[1],
            "swapped": swapped and statistics.summarize_seeds(swapped),
            "by_epoch": curves.tolist(),
        }
    return summary


def check_claims(summary: dict[str, Any]) -> list[statistics.Claim]:
    """Judges the targets and the claims of the paper: returns a list of claims of `statistics`.

    Claims about variants without runs are left out. All claims are undecided unless the runs have 20 epochs: the
    learning rate depends on the number of epochs, so even the first epoch differs.
    """
    claims, last = [], {variant: figures["last"] for variant, figures in summary.items()}
    title = VARIANTS[MAIN].title
    if MAIN in last:
        text = f"{title}: at least 99.1 % after epoch {EPOCHS}"
        claims.append(statistics.judge_mean(text, last[MAIN], last[MAIN]["mean"] >= 99.1))
    if {MAIN, "baseline"} <= set(last):
        text = "baseline at least 0.5 points below"
        claims.append(statistics.judge_order(text, [last[MAIN]], [last["baseline"]], margin=0.5))
    for lower, higher in itertools.pairwise(TABLES[1]):
        if {lower, higher} <= set(last):
            text = f"{VARIANTS[higher].title} above {VARIANTS[lower].title}"
            claims.append(statistics.judge_order(text, [last[higher]], [last[lower]]))
    # Both increases end with the same network, `MAIN`, so the networks before the increases are compared.
    if {"encoder10", "base2"} <= set(last):
        text = "features matter more than base filters: 10 to 20 of them gain more than 2 to 5 base filters"
        claims.append(statistics.judge_order(text, [last["base2"]], [last["encoder10"]]))
    if {"encoder5", MAIN, "base2", "base10"} <= set(last):
        text = "features matter more than base filters: 5 to 20 of them gain more than 2 to 10 base filters"
        claims.append(statistics.judge_order(text, [last[MAIN], last["base2"]], [last["encoder5"], last["base10"]]))
    if MAIN in summary:
        first = summary[MAIN]["first"]
        claims.append(statistics.judge_mean(f"{title}: at least 97.5 % after epoch 1", first, first["mean"] >= 97.5))
        if "baseline" in summary:
            text = f"{title} above the baseline after epoch 1"
            claims.append(statistics.judge_order(text, [first], [summary["baseline"]["first"]]))
    others = sorted({figures["epochs"] for figures in summary.values()} - {EPOCHS})
    if others:
        note = f"of {' and '.join(map(str, others))} epochs"
        claims = [{**claim, "claim": f"{claim['claim']} ({note})", "verdict": statistics.UNDECIDED} for claim in claims]
    return claims


def markdown(summary: dict[str, Any], claims: list[statistics.Claim]) -> str:
    """Returns both tables and the claims as Markdown."""
    parts = []
    for number, variants in TABLES.items():
        rows = [_row(variant, summary[variant]) for variant in variants if variant in summary]
        if rows:
            head = ["", "parameters", "seeds", "epoch 1", "paper", f"epoch {EPOCHS}", "paper", "others' filters"]
            parts.append(f"Table {number}: test accuracy in percent\n\n{md.table(head, rows)}")
    return "\n".join(parts) + md.claims("Targets and claims of the paper, in percent", claims)


def _row(variant, figures):
    first, last = VARIANTS[variant].paper
    epoch = "" if figures["epochs"] == EPOCHS else f" (epoch {figures['epochs']})"
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        str(len(figures["seeds"])),
        md.mean_and_deviation(figures["first"]),
        f"{first:.2f}",
        md.mean_and_deviation(figures["last"]) + epoch,
        f"{last:.2f}",
        md.mean_and_deviation(figures["swapped"]),
    ]


def figure(summary: dict[str, Any]):
    """Draws the test accuracy by epoch: mean and range of the seeds, and the two results of the paper as crosses."""
    drawn = inspection.new_figure(11, 4.5)
    for axis, (number, variants) in zip(drawn.subplots(1, 2, sharey=True), TABLES.items()):
        for color, variant in enumerate(variants):
            if variant not in summary:
                continue
            curves = np.array(summary[variant]["by_epoch"])
            draw_curves(axis, curves, summary[variant]["title"], f"C{color}")
            axis.plot((1, EPOCHS), VARIANTS[variant].paper, "x", color=f"C{color}")
        axis.set(title=f"Table {number}", xlabel="epoch (crosses: the paper)")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    drawn.axes[0].set(ylabel="test accuracy (%)")
    return drawn
