# SPDX-License-Identifier: Apache-2.0
"""What the figures of several seeds say of a claim, and when they leave it open."""

import types

import pytest

from examples.experiments.core import statistics


def spread(*values):
    return statistics.spread(values)


# Standard errors of 0.058 each, of a difference of two 0.082. What that leaves open is 2.8 times as wide, 0.229.
LOW, HIGH, NEAR = spread(79.9, 80.0, 80.1), spread(81.9, 82.0, 82.1), spread(80.1, 80.2, 80.3)
WILD, SINGLE = spread(60.0, 80.0, 100.0), spread(90.0)


def test_an_order_holds_only_where_it_is_certain():
    for more, less, verdict in [
        (HIGH, LOW, "holds"),
        (LOW, HIGH, "does not hold"),
        (NEAR, LOW, "undecided"),  # 0.2 of 0.229
        (WILD, LOW, "undecided"),
        (HIGH, WILD, "undecided"),
        (SINGLE, LOW, "undecided"),
        (LOW, SINGLE, "undecided"),
    ]:
        assert statistics.above("claim", [more], [less])["verdict"] == verdict
    found = statistics.above("claim", [HIGH], [LOW])
    assert found["difference"] == pytest.approx(2.0) and found["error"] == pytest.approx((2 * 0.01 / 3) ** 0.5)
    assert statistics.above("claim", [SINGLE], [LOW])["error"] is None


def test_two_errors_do_not_make_an_order():
    """So far apart are three seeds of the same network once in nine times."""
    assert statistics.above("claim", [spread(80.07, 80.17, 80.27)], [LOW])["verdict"] == "undecided"  # 2.1 errors
    assert statistics.above("claim", [spread(80.14, 80.24, 80.34)], [LOW])["verdict"] == "holds"  # 2.9 errors


def test_orders_by_how_much():
    assert statistics.above("claim", [HIGH], [LOW], least=1.5)["verdict"] == "holds"
    assert statistics.above("claim", [HIGH], [LOW], least=1.9)["verdict"] == "undecided"
    assert statistics.above("claim", [HIGH], [LOW], least=2.5)["verdict"] == "does not hold"


def test_sums_add_their_errors():
    found = statistics.above("claim", [HIGH, HIGH], [LOW, NEAR])
    assert found["difference"] == pytest.approx(3.8) and found["error"] == pytest.approx((4 * 0.01 / 3) ** 0.5)
    assert statistics.above("claim", [HIGH, HIGH], [LOW, SINGLE])["verdict"] == "undecided"


def test_a_large_spread_does_not_make_alike():
    for first, second, margin, verdict in [
        (NEAR, LOW, 1.0, "holds"),
        (LOW, NEAR, 1.0, "holds"),
        (NEAR, LOW, 0.4, "undecided"),  # 0.2 + 0.229
        (HIGH, LOW, 1.0, "does not hold"),
        (LOW, HIGH, 1.0, "does not hold"),
        (WILD, LOW, 1.0, "undecided"),
        (SINGLE, LOW, 1.0, "undecided"),
    ]:
        assert statistics.alike("claim", first, second, margin)["verdict"] == verdict


def test_a_fixed_number_is_judged_by_the_mean():
    assert statistics.reached("claim", SINGLE, True) == {"claim": "claim", "mean": 90.0, "verdict": "holds"}
    assert statistics.reached("claim", WILD, False)["verdict"] == "does not hold"


def test_claims_as_a_table():
    claims = [
        statistics.above("a", [HIGH], [LOW]),
        statistics.above("b", [SINGLE], [LOW]),
        statistics.reached("c", SINGLE, True),
    ]
    text = statistics.judged("Claims", claims)
    assert text.startswith("\nClaims\n\n|  | found |  |\n")
    for row in ("| a | +2.00 ± 0.08 | holds |", "| b | +10.00 | undecided |", "| c | 90.00 | holds |"):
        assert f"{row}\n" in text
    assert "within\n2.8 errors" in text
    assert statistics.judged("Claims", []) == ""


def test_what_all_tables_begin_and_end_with():
    runs = [{"seed": seed, "parameters": 7, "training_seconds": 60.0 * seed} for seed in (1, 3)]
    assert statistics.beginning("a", runs) == {"title": "a", "parameters": 7, "seeds": [1, 3], "minutes": 2.0}
    module = types.SimpleNamespace(
        summarize=lambda cells: {"of": cells},
        check_claims=lambda summary: [summary["of"]],
        markdown=lambda summary, claims: f"{summary} {claims}",
        figure=lambda summary: summary["of"],
    )
    found = statistics.report(module, "cells", tested="images")
    assert found == (
        {"variants": {"of": "cells"}, "claims": ["cells"]},
        "{'of': 'cells'} ['cells']",
        {"accuracy.png": "cells"},
    )
