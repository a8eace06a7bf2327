# SPDX-License-Identifier: Apache-2.0
"""Formats results as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from examples.experiments.core import statistics


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Formats a table of strings."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def mean_and_deviation(summary: Mapping[str, Any] | None) -> str:
    """Formats a summary of `statistics.summarize_seeds` as `mean ± deviation`; an empty string for None."""
    if summary is None:
        return ""
    deviation = "" if summary["deviation"] is None else f" ± {summary['deviation']:.2f}"
    return f"{summary['mean']:.2f}{deviation}"


def finding(claim: Mapping[str, Any]) -> str:
    """Formats the mean or the difference that decided a claim of `statistics`."""
    if "mean" in claim:
        return f"{claim['mean']:.2f}"
    error = "" if claim["error"] is None else f" ± {claim['error']:.2f}"
    return f"{claim['difference']:+.2f}{error}"


def claims(title: str, judged: Sequence[Mapping[str, Any]]) -> str:
    """Formats a titled table of claims and their verdicts; an empty string if there are no claims."""
    if not judged:
        return ""
    rows = [[claim["claim"], finding(claim), claim["verdict"]] for claim in judged]
    return f"\n{title}\n\n{table(['', 'found', ''], rows)}\n{statistics.RULE}\n"
