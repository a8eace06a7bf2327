# SPDX-License-Identifier: Apache-2.0
"""Makes the tables of the ablations of DDF, judges the orderings that the paper reports, and draws all runs."""

import itertools
from collections.abc import Iterable
from typing import Any

from examples.experiments.core import markdown as md
from examples.experiments.core import statistics
from examples.experiments.ddf.ablation_variants import VARIANTS
from keras_dynfilter import inspection

# Title, and variants in the order of the paper; every table contains DDF.
TABLES = {
    "3(a)": ("kinds of filters", ("base", "spatial", "channel", "ddf")),
    "3(b)": ("normalisation of the filters", ("batch_norm", "sigmoid", "no_norm", "ddf")),
    "3(c)": ("squeeze ratio (0.2 by default)", ("ddf", "squeeze_0.3", "squeeze_0.4")),
    "4": ("other filters", ("base", "depthwise", "condconv", "depthwise_condconv", "spatial", "channel", "ddf")),
}
PAPER_EQUAL = 0.25  # percent: results of the paper that differ by less count as equal (the squeeze ratios)
MARGIN = 1.0  # percent: our results count as equal if they differ by at most so much


def summarize(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns parameters, FLOPs, our accuracies and the accuracies of the paper in percent, by variant."""
    return {
        variant: {
            **statistics.summarize_variant(VARIANTS[variant].title, runs),
            "paper": VARIANTS[variant].paper,
            "flops": runs[0]["flops"],
            "top1": statistics.summarize_seeds([run["test"]["top1"] for run in runs]),
            "test_images": runs[0]["test"]["images"],
        }
        for variant, runs in statistics.by_variant(runs, VARIANTS).items()
    }


def check_claims(summary: dict[str, Any]) -> list[statistics.Claim]:
    """Judges the paper's orderings of the variants within each table.

    Returns:
        A list of claims of `statistics`: orders, or equalities where the paper's results differ by less than
        `PAPER_EQUAL`. Each claim also has the `table`, the `better` and the `worse` variant, and the difference in the
        `paper`.
    """
    claims, seen = [], set()
    for table, (_, variants) in TABLES.items():
        reported = [variant for variant in variants if variant in summary and VARIANTS[variant].paper is not None]
        for pair in itertools.combinations(reported, 2):
            if frozenset(pair) in seen:
                continue
            seen.add(frozenset(pair))
            better, worse = sorted(pair, key=lambda variant: -VARIANTS[variant].paper)
            claims.append({"table": table, **_check(better, worse, summary)})
    return claims


def _check(better, worse, summary):
    paper = VARIANTS[better].paper - VARIANTS[worse].paper
    (first, second), (title, other) = ([summary[name][key] for name in (better, worse)] for key in ("top1", "title"))
    if paper < PAPER_EQUAL:
        claim = statistics.judge_equality(f"{title} equals {other}", first, second, MARGIN)
    else:
        claim = statistics.judge_order(f"{title} above {other}", [first], [second])
    return {"better": better, "worse": worse, "paper": round(paper, 1), **claim}


def markdown(summary: dict[str, Any], claims: list[statistics.Claim]) -> str:
    """Returns all tables as Markdown."""
    parts = []
    for table, (title, variants) in TABLES.items():
        rows = [_row(summary[variant]) for variant in variants if variant in summary]
        if len(rows) > 1:
            head = ["", "parameters", "FLOPs", "top-1 (%)", "seeds", "paper, ResNet-50 on ImageNet"]
            parts.append(f"Table {table}: {title}\n\n{md.table(head, rows)}")
    if claims:
        rows = [
            [claim["claim"], claim["table"], f"{claim['paper']:+.1f}", md.finding(claim), claim["verdict"]]
            for claim in claims
        ]
        head = ["ordering", "table", "paper", "here", ""]
        images = next(iter(summary.values()))["test_images"]
        parts.append(
            f"The paper's orderings\n\n{md.table(head, rows)}\n"
            f"{statistics.RULE} Two\n"
            f"variants are equal if the confidence interval of their difference is within {MARGIN:g} percent. All\n"
            f"runs are tested on the same {images:,} images; more seeds do not make up for few images.\n"
        )
    return "\n\n".join(parts)


def _row(figures):
    paper = "" if figures["paper"] is None else f"{figures['paper']:.1f}"
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        f"{figures['flops'] / 1e6:.2f}M",
        md.mean_and_deviation(figures["top1"]),
        str(len(figures["seeds"])),
        paper,
    ]


def figure(summary: dict[str, Any]):
    """Draws the accuracy of every run, and their means, with a row for each variant."""
    drawn = inspection.new_figure(8, 0.42 * len(summary) + 1.1)
    axis = drawn.subplots()
    for row, figures in enumerate(summary.values()):
        values, mean = figures["top1"]["values"], figures["top1"]["mean"]
        axis.plot(values, [row] * len(values), "o", color="C0", alpha=0.6)
        axis.plot([mean] * 2, [row - 0.3, row + 0.3], color="C3", linewidth=2)
    titles = [f"{figures['title']}\n{figures['parameters'] / 1e3:.0f} k" for figures in summary.values()]
    axis.set_yticks(range(len(summary)), titles, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="top-1 (%) on test images: runs, and their mean")
    axis.grid(axis="x", alpha=0.3)
    return drawn
