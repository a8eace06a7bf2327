# SPDX-License-Identifier: Apache-2.0
"""Tables of the ablations of DDF, the paper's orderings beside them, and a figure of all runs."""

import itertools

from examples.experiments.core import statistics
from examples.experiments.ddf.ablation_variants import VARIANTS
from keras_dynfilter import inspection

# Title, variants in the order of the paper; the ablation of DDF itself stands in each.
TABLES = {
    "3(a)": ("kinds of filters", ("base", "spatial", "channel", "ddf")),
    "3(b)": ("normalisation of the filters", ("batch_norm", "sigmoid", "no_norm", "ddf")),
    "3(c)": ("squeeze ratio (0.2 by default)", ("ddf", "squeeze_0.3", "squeeze_0.4")),
    "4": ("other filters", ("base", "depthwise", "condconv", "depthwise_condconv", "spatial", "channel", "ddf")),
}
ALIKE = 0.25  # percent: the paper's squeeze ratios differ by up to 0.2, and count as alike
MARGIN = 1.0  # percent, by which ours may differ then


def summarize(cells):
    """By variant: parameters, FLOPs, and the accuracy in percent over the seeds, with the paper's."""
    return {
        variant: {
            **statistics.beginning(VARIANTS[variant].title, runs),
            "paper": VARIANTS[variant].paper,
            "flops": runs[0]["flops"],
            "top1": statistics.spread([run["test"]["top1"] for run in runs]),
            "test_images": runs[0]["test"]["images"],
        }
        for variant, runs in statistics.by_variant(cells, VARIANTS).items()
    }


def check_claims(summary):
    """The paper's orderings of the variants that stand in one table, and whether they hold here.

    Returns:
        A list of what `tables.above` returns, or `tables.alike` where the paper's differ by less than `ALIKE`, with the
        `table`, the `better` and the `worse` variant, and the `paper`'s difference.
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
    (first, second), (title, other) = ([summary[name][key] for name in (better, worse)] for key in ("top1", "title"))
    if paper < ALIKE:
        judged = statistics.alike(f"{title} like {other}", first, second, MARGIN)
    else:
        judged = statistics.above(f"{title} above {other}", [first], [second])
    return {"better": better, "worse": worse, "paper": round(paper, 1), **judged}


def markdown(summary, claims):
    """All tables as Markdown."""
    parts = []
    for table, (title, variants) in TABLES.items():
        rows = [_row(summary[variant]) for variant in variants if variant in summary]
        if len(rows) > 1:
            head = ["", "parameters", "FLOPs", "top-1 (%)", "seeds", "paper, ResNet-50 on ImageNet"]
            parts.append(f"Table {table}: {title}\n\n{statistics.markdown(head, rows)}")
    if claims:
        rows = [
            [each["claim"], each["table"], f"{each['paper']:+.1f}", statistics.finding(each), each["verdict"]]
            for each in claims
        ]
        head = ["ordering", "table", "paper", "here", ""]
        images = next(iter(summary.values()))["test_images"]
        parts.append(
            f"The paper's orderings\n\n{statistics.markdown(head, rows)}\n"
            f"{statistics.RULE} Those are alike that differ by {MARGIN:g} at most,\n"
            f"with the errors counted in. Percent are of {images:,} test images, the same for all runs: more seeds do\n"
            "not make up for few."
        )
    return "\n\n".join(parts) + "\n"


def _row(figures):
    paper = "" if figures["paper"] is None else f"{figures['paper']:.1f}"
    return [
        figures["title"],
        f"{figures['parameters']:,}",
        f"{figures['flops'] / 1e6:.2f}M",
        statistics.text(figures["top1"]),
        str(len(figures["seeds"])),
        paper,
    ]


def figure(summary):
    """Accuracy of every run, and their means, a row for each variant."""
    drawn = inspection.new_figure(8, 0.42 * len(summary) + 1.1)
    axis = drawn.subplots()
    for row, figures in enumerate(summary.values()):
        runs, mean = figures["top1"]["runs"], figures["top1"]["mean"]
        axis.plot(runs, [row] * len(runs), "o", color="C0", alpha=0.6)
        axis.plot([mean] * 2, [row - 0.3, row + 0.3], color="C3", linewidth=2)
    titles = [f"{figures['title']}\n{figures['parameters'] / 1e3:.0f} k" for figures in summary.values()]
    axis.set_yticks(range(len(summary)), titles, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="top-1 (%) on test images: runs, and their mean")
    axis.grid(axis="x", alpha=0.3)
    return drawn
