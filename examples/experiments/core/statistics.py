# SPDX-License-Identifier: Apache-2.0
"""Summarizes the runs of several seeds, and judges claims by Welch's t-test: holds, does not hold, undecided."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05
RULE = (
    "Differences of means are followed by their standard error over the seeds. A difference decides a claim if a\n"
    f"two-sided Welch t-test is significant at the {LEVEL:.0%} level. Single seeds leave the claim undecided."
)
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

Summary = Mapping[str, Any]
Claim = dict[str, Any]


def summarize_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Returns `{"mean", "deviation", "values"}` of one value per seed; the deviation of a single value is None."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "values": [float(value) for value in values]}


def by_variant(runs: Iterable[Mapping[str, Any]], variants: Iterable[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the finished runs of each variant, ordered by seed; variants without runs are left out."""
    runs = list(runs)
    grouped = {
        variant: sorted((run for run in runs if run["variant"] == variant), key=lambda run: run["seed"])
        for variant in variants
    }
    return {variant: runs for variant, runs in grouped.items() if runs}


def summarize_variant(title: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entries that all summaries have: title, parameters, seeds and mean minutes of training."""
    return {
        "title": title,
        "parameters": runs[0]["parameters"],
        "seeds": [run["seed"] for run in runs],
        "minutes": float(np.mean([run["training_seconds"] for run in runs])) / 60,
    }


# A claim is a dictionary of the text `claim`, the `verdict`, and the number that decides it: a `mean`, or a
# `difference` with its standard `error`.


def judge_mean(claim: str, summary: Summary, met: bool) -> Claim:
    """Judges a claim that compares a mean with a fixed number, by the mean alone.

    Args:
        claim: Text.
        summary: Summary by `summarize_seeds`.
        met: Whether the claim holds for the mean.
    """
    return {"claim": claim, "mean": summary["mean"], "verdict": HOLDS if met else FAILS}


def judge_order(claim: str, higher: Sequence[Summary], lower: Sequence[Summary], margin: float = 0.0) -> Claim:
    """Judges a claim that one sum of means is above another one.

    Args:
        claim: Text.
        higher: Summaries by `summarize_seeds`; the claim says that the sum of their means is the higher one.
        lower: Summaries of the other sum.
        margin: Least difference of the sums according to the claim.
    """
    difference, error, freedom = contrast(higher, lower)
    verdict = UNDECIDED
    if error is not None and p_value(difference - margin, error, freedom) < LEVEL:
        verdict = HOLDS if difference > margin else FAILS
    return {"claim": claim, "difference": difference, "error": error, "verdict": verdict}


def judge_equality(claim: str, first: Summary, second: Summary, margin: float) -> Claim:
    """Judges a claim that two means are equal within a margin.

    The claim holds if the confidence interval of the difference is within the margin, so a large error never makes it
    hold. It does not hold if the difference is significant and the interval reaches beyond the margin.

    Args:
        claim: Text.
        first: Summary by `summarize_seeds`.
        second: Summary that the first one is compared with.
        margin: Largest difference of two means that count as equal.
    """
    difference, error, freedom = contrast([first], [second])
    verdict = UNDECIDED
    if error is not None:
        half_interval = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
        if abs(difference) + half_interval <= margin:
            verdict = HOLDS
        elif abs(difference) > half_interval:
            verdict = FAILS
    return {"claim": claim, "difference": difference, "error": error, "verdict": verdict}


def contrast(higher: Sequence[Summary], lower: Sequence[Summary]) -> tuple[float, float | None, float | None]:
    """Returns the difference of two sums of means, its standard error, and its degrees of freedom.

    The degrees of freedom follow the Welch-Satterthwaite equation, so two means are compared as
    `scipy.stats.ttest_ind(equal_var=False)` does. The error and the degrees of freedom are None if a mean is of a
    single seed.
    """
    summaries = [*higher, *lower]
    difference = sum(summary["mean"] for summary in higher) - sum(summary["mean"] for summary in lower)
    if any(summary["deviation"] is None for summary in summaries):
        return difference, None, None
    counts = np.array([len(summary["values"]) for summary in summaries])
    variances = np.array([summary["deviation"] for summary in summaries]) ** 2 / counts
    variance = float(variances.sum())
    freedom = variance**2 / float((variances**2 / (counts - 1)).sum()) if variance else float(counts.min() - 1)
    return difference, math.sqrt(variance), freedom


def p_value(difference: float, error: float, freedom: float) -> float:
    """Returns the two-sided p-value of a difference, by Student's t."""
    if not error:
        return 0.0 if difference else 1.0
    return 2 * float(stats.t.sf(abs(difference) / error, freedom))
