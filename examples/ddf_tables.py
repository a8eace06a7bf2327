# SPDX-License-Identifier: Apache-2.0
"""Tables of the ablations of DDF, the paper's orderings beside them, and a figure of all runs."""

import itertools
import math

import numpy as np

import tables
from ddf_variants import VARIANTS
from keras_dynfilter import visualize

# Title, variants in the order of the paper; the ablation of DDF itself stands in each.
TABLES = {
    "3(a)": ("kinds of filters", ("base", "spatial", "channel", "ddf")),
    "3(b)": ("normalisation of the filters", ("batch_norm", "sigmoid", "no_norm", "ddf")),
    "3(c)": ("squeeze ratio (0.2 by default)", ("ddf", "squeeze_0.3", "squeeze_0.4")),
    "4": ("other filters", ("base", "depthwise", "condconv", "depthwise_condconv", "spatial", "channel", "ddf")),
}
# In percent: the paper's squeeze ratios differ by up to 0.2 and count as alike.
ALIKE = 0.25
# A difference of means counts if it is larger than so many of its standard errors.
CERTAIN = 2.0


def summarize(cells):
    """By variant: parameters, FLOPs, accuracies by seed, their mean and standard deviation (None for one seed)."""
    summary = {}
    for variant, runs in tables.by_variant(cells, VARIANTS).items():
        top1 = tables.spread([run["test"]["top1"] for run in runs])
        summary[variant] = {
            "title": VARIANTS[variant].title,
            "paper": VARIANTS[variant].paper,
            "parameters": runs[0]["parameters"],
            "flops": runs[0]["flops"],
            "seeds": [run["seed"] for run in runs],
            "top1": top1["runs"],
            "mean": top1["mean"],
            "deviation": top1["deviation"],
            "test_images": runs[0]["test"]["images"],
            "minutes": float(np.mean([run["training_seconds"] for run in runs])) / 60,
        }
    return summary


def check_claims(summary):
    """The paper's orderings of the variants that stand in one table, and whether they hold here.

    Returns:
        A list of dicts: the `table`, the `claim`, the `paper`'s difference and the `difference` of our means, its
        `error` (standard error, None with one seed of either), and the `verdict`: `"holds"`, `"does not hold"`, or
        `"undecided"`, where the difference is within `CERTAIN` errors.
    """
    claims, seen = [], set()
    for table, (_, variants) in TABLES.items():
        known = [variant for variant in variants if variant in summary and VARIANTS[variant].paper is not None]
        for pair in itertools.combinations(known, 2):
            if frozenset(pair) in seen:
                continue
            seen.add(frozenset(pair))
            better, worse = sorted(pair, key=lambda variant: -VARIANTS[variant].paper)
            claims.append({"table": table, **_check(better, worse, summary)})
    return claims


def _check(better, worse, summary):
    paper = VARIANTS[better].paper - VARIANTS[worse].paper
    alike = paper < ALIKE
    first, second = summary[better], summary[worse]
    difference, error = first["mean"] - second["mean"], None
    if None not in (first["deviation"], second["deviation"]):
        error = math.sqrt(sum(each["deviation"] ** 2 / len(each["top1"]) for each in (first, second)))
    if error is None:
        verdict = "undecided"
    elif alike:
        verdict = "holds" if abs(difference) <= CERTAIN * error else "does not hold"
    elif abs(difference) <= CERTAIN * error:
        verdict = "undecided"
    else:
        verdict = "holds" if difference > 0 else "does not hold"
    claim = f"{first['title']} {'like' if alike else 'above'} {second['title']}"
    return {
        "claim": claim,
        "better": better,
        "worse": worse,
        "paper": round(paper, 1),
        "difference": difference,
        "error": error,
        "verdict": verdict,
    }


def markdown(summary, claims):
    """All tables as Markdown."""
    parts = []
    for table, (title, variants) in TABLES.items():
        rows = [_row(summary[variant]) for variant in variants if variant in summary]
        if len(rows) > 1:
            head = ["", "parameters", "FLOPs", "top-1 (%)", "seeds", "paper, ResNet-50 on ImageNet"]
            parts.append(f"Table {table}: {title}\n\n{tables.markdown(head, rows)}")
    if claims:
        rows = [
            [
                each["claim"],
                each["table"],
                f"{each['paper']:+.1f}",
                f"{each['difference']:+.2f}" + (f" ± {each['error']:.2f}" if each["error"] is not None else ""),
                each["verdict"],
            ]
            for each in claims
        ]
        head = ["ordering", "table", "paper", "here", ""]
        images = next(iter(summary.values()))["test_images"]
        parts.append(
            f"The paper's orderings\n\n{tables.markdown(head, rows)}\n"
            f"Differences are in percent of {images:,} test images, with their standard error over the seeds; within\n"
            f"{CERTAIN:g} errors they are undecided. All runs share the test images: more seeds do not make up for few."
        )
    return "\n\n".join(parts) + "\n"


def _row(figures):
    paper = "" if figures["paper"] is None else f"{figures['paper']:.1f}"
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        f"{figures['flops'] / 1e6:.2f}M",
        tables.text(figures),
        str(len(figures["seeds"])),
        paper,
    ]


def figure(summary):
    """Accuracy of every run, and their means, a row for each variant."""
    drawn = visualize.new_figure(8, 0.42 * len(summary) + 1.1)
    axis = drawn.subplots()
    for row, figures in enumerate(summary.values()):
        axis.plot(figures["top1"], [row] * len(figures["top1"]), "o", color="C0", alpha=0.6)
        axis.plot([figures["mean"]] * 2, [row - 0.3, row + 0.3], color="C3", linewidth=2)
    titles = [f"{figures['title']}\n{figures['parameters'] / 1e3:.0f} k" for figures in summary.values()]
    axis.set_yticks(range(len(summary)), titles, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="top-1 (%) on test images: runs, and their mean")
    axis.grid(axis="x", alpha=0.3)
    return drawn
