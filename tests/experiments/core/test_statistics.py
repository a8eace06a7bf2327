# SPDX-License-Identifier: Apache-2.0
"""Verdicts on claims from several seeds, compared with SciPy, and their tables."""

import numpy as np
import pytest
from scipy import stats

from examples.experiments.core import markdown, statistics

summary = statistics.summarize_seeds

# Three seeds each. The standard error is 0.058 for a mean and 0.082 for a difference, whose 95 % interval is +- 0.227.
LOW, HIGH, NEAR = summary([79.9, 80.0, 80.1]), summary([81.9, 82.0, 82.1]), summary([80.1, 80.2, 80.3])
WILD, SINGLE = summary([60.0, 80.0, 100.0]), summary([90.0])


def test_summary_of_seeds():
    low = summary([79.9, 80.0, 80.1])
    assert low == {"mean": pytest.approx(80.0), "deviation": pytest.approx(0.1), "values": [79.9, 80.0, 80.1]}
    assert SINGLE == {"mean": 90.0, "deviation": None, "values": [90.0]}


@pytest.mark.parametrize("counts", [(3, 3), (2, 2), (3, 5), (2, 10)])
def test_two_groups_are_compared_as_scipy_does(counts):
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=count) * (1 + 3 * i) for i, count in enumerate(counts))
    expected = stats.ttest_ind(first, second, equal_var=False)
    contrast = statistics.contrast([summary(first)], [summary(second)])
    assert contrast[2] == pytest.approx(expected.df)
    assert statistics.p_value(*contrast) == pytest.approx(expected.pvalue)


def test_differences_of_sums_are_significant_as_often_as_the_level_says():
    generator = np.random.default_rng(0)
    significant = 0
    for _ in range(2000):
        groups = [summary(values) for values in generator.normal(size=(4, 3))]
        significant += statistics.p_value(*statistics.contrast(groups[:2], groups[2:])) < statistics.LEVEL
    assert 0.02 < significant / 2000 < 0.06  # Welch's test is a little conservative with few seeds


@pytest.mark.parametrize(
    "higher, lower, verdict",
    [
        (HIGH, LOW, "holds"),
        (LOW, HIGH, "does not hold"),
        (NEAR, LOW, "undecided"),  # 0.2 is within the interval
        (WILD, LOW, "undecided"),
        (HIGH, WILD, "undecided"),
        (SINGLE, LOW, "undecided"),
        (LOW, SINGLE, "undecided"),
        (summary([80.14, 80.24, 80.34]), LOW, "holds"),  # 0.24 is beyond it
        (summary([5.0, 5.0]), summary([4.0, 4.0]), "holds"),  # no error at all
        (summary([5.0, 5.0]), summary([5.0, 5.0]), "undecided"),
    ],
)
def test_orders(higher, lower, verdict):
    assert statistics.judge_order("claim", [higher], [lower])["verdict"] == verdict


def test_more_seeds_decide_smaller_differences():
    offset = np.array([-0.1, 0.0, 0.1])
    few = [summary(mean + offset) for mean in (80.15, 80.0)]
    many = [summary(mean + np.tile(offset, 4)) for mean in (80.15, 80.0)]
    assert statistics.judge_order("claim", few[:1], few[1:])["verdict"] == "undecided"
    assert statistics.judge_order("claim", many[:1], many[1:])["verdict"] == "holds"


def test_record_of_a_judged_order():
    claim = statistics.judge_order("claim", [HIGH], [LOW])
    assert claim["difference"] == pytest.approx(2.0) and claim["error"] == pytest.approx((2 * 0.01 / 3) ** 0.5)
    assert statistics.judge_order("claim", [SINGLE], [LOW])["error"] is None
    claim = statistics.judge_order("claim", [HIGH, HIGH], [LOW, NEAR])
    assert claim["difference"] == pytest.approx(3.8) and claim["error"] == pytest.approx((4 * 0.01 / 3) ** 0.5)
    assert statistics.judge_order("claim", [HIGH, HIGH], [LOW, SINGLE])["verdict"] == "undecided"


@pytest.mark.parametrize("margin, verdict", [(1.5, "holds"), (1.9, "undecided"), (2.5, "does not hold")])
def test_orders_with_a_margin(margin, verdict):
    assert statistics.judge_order("claim", [HIGH], [LOW], margin)["verdict"] == verdict


@pytest.mark.parametrize(
    "first, second, margin, verdict",
    [
        (NEAR, LOW, 1.0, "holds"),
        (LOW, NEAR, 1.0, "holds"),
        (NEAR, LOW, 0.4, "undecided"),  # 0.2 + 0.227
        (HIGH, LOW, 1.0, "does not hold"),
        (LOW, HIGH, 1.0, "does not hold"),
        (WILD, LOW, 1.0, "undecided"),  # a large error is no reason for equality
        (SINGLE, LOW, 1.0, "undecided"),
    ],
)
def test_equality(first, second, margin, verdict):
    assert statistics.judge_equality("claim", first, second, margin)["verdict"] == verdict


def test_means_are_compared_with_fixed_numbers():
    assert statistics.judge_mean("claim", SINGLE, True) == {"claim": "claim", "mean": 90.0, "verdict": "holds"}
    assert statistics.judge_mean("claim", WILD, False)["verdict"] == "does not hold"


def test_claims_as_a_table():
    claims = [
        statistics.judge_order("a", [HIGH], [LOW]),
        statistics.judge_order("b", [SINGLE], [LOW]),
        statistics.judge_mean("c", SINGLE, True),
    ]
    text = markdown.claims("Claims", claims)
    assert text.startswith("\nClaims\n\n|  | found |  |\n")
    for row in ("| a | +2.00 ± 0.08 | holds |", "| b | +10.00 | undecided |", "| c | 90.00 | holds |"):
        assert f"{row}\n" in text
    assert "Welch t-test is significant at the 5% level" in text
    assert markdown.claims("Claims", []) == ""


def test_runs_of_variants():
    runs = [{"variant": "a", "seed": seed, "parameters": 7, "training_seconds": 60.0 * seed} for seed in (3, 1)]
    by_variant = statistics.by_variant(runs, ["b", "a"])
    assert by_variant == {"a": runs[::-1]}
    expected = {"title": "A", "parameters": 7, "seeds": [1, 3], "minutes": 2.0}
    assert statistics.summarize_variant("A", by_variant["a"]) == expected
