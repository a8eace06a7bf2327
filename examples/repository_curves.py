# SPDX-License-Identifier: Apache-2.0
"""Accuracies of the CIFAR-10 networks by epoch, as in figure 4 of the filter repository paper, and what it claims."""

import numpy as np

import tables
from keras_dynfilter import visualize

VARIANTS = {"baseline": "baseline", "generated": "generated filters", "vgg11": "VGG11"}
SETS = {"train_accuracy": "training", "test_accuracy": "test"}
PAPER_SWAPPED = 15.24  # percent; the only number of the paper
FITTED = 98.0  # percent of the training images, with generated filters


def summarize(cells):
    """By variant: accuracies in percent after the last epoch and by epoch, on training and on test images, and swapped.

    Args:
        cells: What is known of the finished cells, as dicts.
    """
    summary = {}
    for variant, runs in tables.by_variant(cells, VARIANTS).items():
        curves = {name: np.array([[epoch[name] for epoch in run["history"]] for run in runs]) for name in SETS}
        summary[variant] = {
            "title": VARIANTS[variant],
            "parameters": runs[0]["parameters"],
            "seeds": [run["seed"] for run in runs],
            "epochs": len(runs[0]["history"]),
            **{name: tables.spread(values[:, -1]) for name, values in curves.items()},
            "swapped": None if runs[0]["swapped"] is None else tables.spread([run["swapped"] for run in runs]),
            "by_epoch": {name: values.tolist() for name, values in curves.items()},
            "minutes": float(np.mean([run["training_seconds"] for run in runs])) / 60,
        }
    return summary


def check_claims(summary):
    """What the paper says, and whether it holds here: a list of dicts of `claim`, `found` and `holds`.

    Claims of which a variant is missing are left out. What is alike (VGG11, a gain of a point) is for the reader.
    """

    def mean(variant, name):
        return summary[variant][name]["mean"]

    lines = []
    if "generated" in summary:
        found = mean("generated", "train_accuracy")
        lines.append((f"generated filters fit more than {FITTED:g} % of the training images", found, found > FITTED))
        found = summary["generated"]["swapped"]["mean"]
        text = f"others' filters are of little use, {PAPER_SWAPPED} %: below half of the accuracy"
        lines.append((text, found, found < mean("generated", "test_accuracy") / 2))
    for name, title in SETS.items():
        if {"baseline", "generated"} <= set(summary):
            found = mean("generated", name) - mean("baseline", name)
            lines.append((f"generated filters are above the baseline on {title} images", found, found > 0))
    return tables.judge(lines)


def markdown(summary, claims):
    """Accuracies and claims as Markdown."""
    head = ["accuracy in percent", "parameters", "seeds", "epochs", "training", "test", "others' filters", "minutes"]
    rows = [
        [
            figures["title"],
            f"{figures['parameters']:,}",
            str(len(figures["seeds"])),
            str(figures["epochs"]),
            *(tables.text(figures[name]) for name in (*SETS, "swapped")),
            f"{figures['minutes']:.0f}",
        ]
        for figures in summary.values()
    ]
    return tables.markdown(head, rows) + tables.judged("What the paper claims, of the means", claims)


def figure(summary):
    """Accuracy by epoch: means, and from the worst to the best seed."""
    drawn = visualize.new_figure(11, 4.5)
    for axis, (name, title) in zip(drawn.subplots(1, 2), SETS.items()):
        for figures in summary.values():
            tables.draw_curves(axis, np.array(figures["by_epoch"][name]), f"{figures['title']}")
        axis.set(title=f"{title} images", xlabel="epoch", ylabel="accuracy (%)")
        axis.grid(alpha=0.3)
        axis.legend()
    return drawn
