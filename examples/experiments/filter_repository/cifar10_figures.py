# SPDX-License-Identifier: Apache-2.0
"""Accuracies of the CIFAR-10 networks by epoch, as in figure 4 of the filter repository paper, and what it claims."""

import numpy as np

from examples.experiments.core import statistics
from keras_dynfilter import inspection

VARIANTS = {"baseline": "baseline", "generated": "generated filters", "vgg11": "VGG11"}
WATCHED = 1_000  # training images whose accuracy is measured after every epoch, the first ones
SETS = {"train_accuracy": f"training (the first {WATCHED:,})", "test_accuracy": "test"}
PAPER_SWAPPED = 15.24  # percent; the only number of the paper
FITTED = 98.0  # percent of the training images: with generated filters more, where the baseline underfits
ALL = 50_000  # training images; fewer are easier to fit
MARGIN = 1.0  # percent, by which a network may differ from VGG11 that has as much


def summarize(cells):
    """By variant: accuracies in percent after the last epoch and by epoch, on training and on test images, and swapped.

    Args:
        cells: What is known of the finished cells, as dicts.
    """
    summary = {}
    for variant, runs in statistics.by_variant(cells, VARIANTS).items():
        curves = {name: np.array([[epoch[name] for epoch in run["history"]] for run in runs]) for name in SETS}
        summary[variant] = {
            **statistics.beginning(VARIANTS[variant], runs),
            "train_images": runs[0]["train_images"],
            "epochs": len(runs[0]["history"]),
            **{name: statistics.spread(values[:, -1]) for name, values in curves.items()},
            "swapped": None if runs[0]["swapped"] is None else statistics.spread([run["swapped"] for run in runs]),
            "by_epoch": {name: values.tolist() for name, values in curves.items()},
        }
    return summary


def check_claims(summary):
    """What the paper says, and whether it holds here: a list of claims as `tables` has them.

    Claims of which a variant is missing are left out. What is said of training images is measured on `WATCHED` of them.
    Whether networks fit them is undecided where not all were trained on: the baseline may well fit a few.
    """
    baseline, generated, vgg11 = (summary.get(variant) for variant in VARIANTS)
    claims = []
    if baseline:
        text = f"the baseline underfits: it fits less than {FITTED:g} % of the training images"
        claims.append(_fits(text, baseline, baseline["train_accuracy"]["mean"] < FITTED))
    if generated:
        text = f"generated filters fit more than {FITTED:g} % of the training images"
        claims.append(_fits(text, generated, generated["train_accuracy"]["mean"] > FITTED))
        text = f"others' filters are of little use, {PAPER_SWAPPED} %: below half of the accuracy"
        swapped = generated["swapped"]
        claims.append(statistics.reached(text, swapped, swapped["mean"] < generated["test_accuracy"]["mean"] / 2))
    if baseline and generated:
        for name, gain in (("train_accuracy", "training images"), ("test_accuracy", "test images")):
            text = f"generated filters are above the baseline on {gain}"
            claims.append(statistics.above(text, [generated[name]], [baseline[name]]))
    if generated and vgg11:
        text = f"generated filters have as much as VGG11 on test images, within {MARGIN:g}"
        claims.append(statistics.alike(text, generated["test_accuracy"], vgg11["test_accuracy"], MARGIN))
    return claims


def _fits(claim, figures, holds):
    judged = statistics.reached(claim, figures["train_accuracy"], holds)
    if figures["train_images"] >= ALL:
        return judged
    few = f"trained on {figures['train_images']:,} of {ALL:,}, which are easier to fit"
    return {**judged, "claim": f"{claim} ({few})", "verdict": statistics.UNDECIDED}


def markdown(summary, claims):
    """Accuracies and claims as Markdown."""
    head = ["accuracy in percent", "parameters", "seeds", "epochs", *SETS.values(), "others' filters", "minutes"]
    rows = [
        [
            figures["title"],
            f"{figures['parameters']:,}",
            str(len(figures["seeds"])),
            str(figures["epochs"]),
            *(statistics.text(figures[name]) for name in (*SETS, "swapped")),
            f"{figures['minutes']:.0f}",
        ]
        for figures in summary.values()
    ]
    return statistics.markdown(head, rows) + statistics.judged("What the paper claims, in percent", claims)


def figure(summary):
    """Accuracy by epoch: means, and from the worst to the best seed."""
    drawn = inspection.new_figure(11, 4.5)
    for axis, (name, title) in zip(drawn.subplots(1, 2), SETS.items()):
        for figures in summary.values():
            statistics.draw_curves(axis, np.array(figures["by_epoch"][name]), f"{figures['title']}")
        axis.set(title=f"{title} images", xlabel="epoch", ylabel="accuracy (%)")
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return drawn
