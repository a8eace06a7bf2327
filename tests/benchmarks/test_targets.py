# SPDX-License-Identifier: Apache-2.0
"""`Target` compares a number with its bound, and reports the result."""

import pytest

from benchmarks.targets import Target, print_targets


@pytest.mark.parametrize(
    "target, value, line",
    [
        (Target("a / b", at_most=0.6), 0.6, "a / b: 0.60, at most 0.6: met"),
        (Target("a / b", at_most=0.6), 0.61, "a / b: 0.61, at most 0.6: MISSED"),
        (Target("speedup", at_least=10), 10.0, "speedup: 10.00, at least 10: met"),
        (Target("speedup", at_least=10), 9.99, "speedup: 9.99, at least 10: MISSED"),
        (Target("memory", at_most=41.4123, unit=" MiB"), 41.5, "memory: 41.50 MiB, at most 41.41: MISSED"),
        (Target("a / b", at_most=0.6), None, "a / b: not measured, at most 0.6"),
    ],
)
def test_report(target, value, line, capsys):
    assert target.report(value) == line
    print_targets([target.report(value)])
    assert capsys.readouterr().out == f"\nTargets:\n  {line}\n"
