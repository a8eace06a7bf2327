# SPDX-License-Identifier: Apache-2.0
"""Compares measured numbers with targets: bounds that they should keep."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Target:
    """Bounds a measured number. Exactly one of `at_most` and `at_least` is given.

    Attributes:
        quantity: Name of the measured number in reports.
        at_most: Largest value that meets the target.
        at_least: Smallest value that meets the target.
        unit: Text after the number in reports.
    """

    quantity: str
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    def met(self, value: float) -> bool:
        """Returns whether `value` keeps the bound."""
        return value >= self.at_least if self.at_most is None else value <= self.at_most

    def report(self, value: float | None) -> str:
        """Returns a line with the value (None: not measured), the bound, and whether the target is met."""
        bound = f"at least {self.at_least:.4g}" if self.at_most is None else f"at most {self.at_most:.4g}"
        if value is None:
            return f"{self.quantity}: not measured, {bound}"
        return f"{self.quantity}: {value:.2f}{self.unit}, {bound}: {'met' if self.met(value) else 'MISSED'}"


def print_targets(lines: Iterable[str]) -> None:
    """Prints the lines of `Target.report` under a heading."""
    print("\nTargets:")
    for line in lines:
        print(f"  {line}")
