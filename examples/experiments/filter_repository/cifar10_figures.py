# SPDX-License-Identifier: Apache-2.0
"""Draws accuracies by epoch, as in figure 4 of the filter repository paper, and judges the claims about CIFAR-10."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from examples.experiments.core import markdown as md
from examples.experiments.core import statistics
from examples.experiments.filter_repository.curves import draw_curves
from keras_dynfilter import inspection

VARIANTS = {"baseline": "baseline", "generated": "generated filters", "vgg11": "VGG11"}
WATCHED = 1_000  # first training images, whose accuracy is computed after every epoch
SETS = {"train_accuracy": f"training (the first {WATCHED:,})", "test_accuracy": "test"}
PAPER_SWAPPED = 15.24  # percent; the only number that the paper reports
FITTED = 98.0  # percent of the training images that generated filters exceed, and the baseline does not
ALL = 50_000  # training images; fewer images are easier to fit
MARGIN = 1.0  # percent, by which a network that is as accurate as VGG11 may differ


def summarize(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns accuracies in percent by variant: of the last epoch, of all epochs, and with the filters of other images.

    Args:
        runs: Descriptions of the finished runs.
    """
    summary = {}
    for variant, same in statistics.by_variant(runs, VARIANTS).items():
        curves = {name: np.array([[epoch[name] for epoch in run["history"]] for run in same]) for name in SETS}
        swapped = None if same[0]["swapped"] is None else [run["swapped"] for run in same]
        summary[variant] = {
            **statistics.summarize_variant(VARIANTS[variant], same),
            "train_images": same[0]["train_images"],
            "epochs": len(same[0]["history"]),
            **{name: statistics.summarize_seeds(values[:, -1]) for name, values in curves.items()},
            "swapped": swapped and statistics.summarize_seeds(swapped),
            "by_epoch": {name: values.tolist() for name, values in curves.items()},
        }
    return summary


def check_claims(summary: dict[str, Any]) -> list[statistics.Claim]:
    """Judges the claims of the paper: returns a list of claims of `statistics`.

    Claims about variants without runs are left out. The accuracy on training images is measured on the first `WATCHED`
    images. Claims that networks fit the training images are undecided unless the networks were trained on all images,
    since even the baseline may fit fewer images.
    """
    baseline, generated, vgg11 = (summary.get(variant) for variant in VARIANTS)
    claims = []
    if baseline:
        text = f"the baseline underfits: it fits less than {FITTED:g} % of the training images"
        claims.append(_fits(text, baseline, baseline["train_accuracy"]["mean"] < FITTED))
    if generated:
        text = f"generated filters fit more than {FITTED:g} % of the training images"
        claims.append(_fits(text, generated, generated["train_accuracy"]["mean"] > FITTED))
        text = f"filters of other images do not fit, {PAPER_SWAPPED} %: below half of the accuracy"
        swapped = generated["swapped"]
        claims.append(statistics.judge_mean(text, swapped, swapped["mean"] < generated["test_accuracy"]["mean"] / 2))
    if baseline and generated:
        for name, gain in (("train_accuracy", "training images"), ("test_accuracy", "test images")):
            text = f"generated filters are above the baseline on {gain}"
            claims.append(statistics.judge_order(text, [generated[name]], [baseline[name]]))
    if generated and vgg11:
        text = f"generated filters are as accurate as VGG11 on test images, within {MARGIN:g} %"
        claims.append(statistics.judge_equality(text, generated["test_accuracy"], vgg11["test_accuracy"], MARGIN))
    return claims


def _fits(claim, figures, holds):
    judged = statistics.judge_mean(claim, figures["train_accuracy"], holds)
    if figures["train_images"] >= ALL:
        return judged
    few = f"trained on {figures['train_images']:,} of {ALL:,}, which are easier to fit"
    return {**judged, "claim": f"{claim} ({few})", "verdict": statistics.UNDECIDED}


def markdown(summary: dict[str, Any], claims: list[statistics.Claim]) -> str:
    """Returns accuracies and claims as Markdown."""
    head = ["accuracy in percent", "parameters", "seeds", "epochs", *SETS.values(), "others' filters", "minutes"]
    rows = [
        [
            figures["title"],
            f"{figures['parameters']:,}",
            str(len(figures["seeds"])),
            str(figures["epochs"]),
            *(md.mean_and_deviation(figures[name]) for name in (*SETS, "swapped")),
            f"{figures['minutes']:.0f}",
        ]
        for figures in summary.values()
    ]
    return md.table(head, rows) + md.claims("Claims of the paper, in percent", claims)


def figure(summary: dict[str, Any]):
    """Draws the accuracy by epoch: mean and range of the seeds."""
    drawn = inspection.new_figure(11, 4.5)
    for axis, (name, title) in zip(drawn.subplots(1, 2), SETS.items()):
        for figures in summary.values():
            draw_curves(axis, np.array(figures["by_epoch"][name]), figures["title"])
        axis.set(title=f"{title} images", xlabel="epoch", ylabel="accuracy (%)")
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return drawn
