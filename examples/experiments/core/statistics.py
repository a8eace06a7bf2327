# SPDX-License-Identifier: Apache-2.0
"""Figures with their spread over the seeds, Markdown tables of them, and what they say of claims."""

import math

import numpy as np

# A difference of means is certain if it is larger than so many of its standard errors: between three seeds each, chance
# makes such a difference once in twenty times (Student's t, four degrees of freedom), between two seeds once in nine.
CERTAIN = 2.8
RULE = "Differences are of means, with their standard error over the seeds. Single seeds, and differences within\n"
RULE += f"{CERTAIN:g} errors, leave an order undecided."
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


def spread(values):
    """`{"mean", "deviation", "runs"}` of a value for each seed; the deviation of one is None."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "runs": [float(value) for value in values]}


def text(figures):
    """A mean and its deviation; nothing for None."""
    if figures is None:
        return ""
    deviation = "" if figures["deviation"] is None else f" ± {figures['deviation']:.2f}"
    return f"{figures['mean']:.2f}{deviation}"


def markdown(head, rows):
    """A table of lists of strings."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def by_variant(cells, variants):
    """The finished cells of each variant, by seed; variants without any are left out."""
    found = {
        variant: sorted((cell for cell in cells if cell["variant"] == variant), key=lambda cell: cell["seed"])
        for variant in variants
    }
    return {variant: runs for variant, runs in found.items() if runs}


def beginning(title, runs):
    """What the summary of a variant begins with: its title, and of its cells parameters, seeds and mean minutes."""
    return {
        "title": title,
        "parameters": runs[0]["parameters"],
        "seeds": [run["seed"] for run in runs],
        "minutes": float(np.mean([run["training_seconds"] for run in runs])) / 60,
    }


def report(module, finished, tested=None):
    """What a grid reports: summary and claims for the results, tables, and a figure, by a module with these functions.

    Args:
        module: Has `summarize`, `check_claims`, `markdown` and `figure`.
        finished: What is known of the finished cells, as dicts.
        tested: The images and labels to test on, which are not needed.
    """
    summary = module.summarize(finished)
    claims = module.check_claims(summary)
    content = {"variants": summary, "claims": claims}
    return content, module.markdown(summary, claims), {"accuracy.png": module.figure(summary)}


# Claims: dicts of the `claim`, the `verdict`, and what was found, a `mean` or a `difference` with its `error`.


def reached(claim, figures, met):
    """A claim on a figure and a fixed number, judged by the mean.

    Args:
        claim: Text.
        figures: What `spread` returned.
        met: Whether it holds of the mean.
    """
    return {"claim": claim, "mean": figures["mean"], "verdict": HOLDS if met else FAILS}


def above(claim, more, less, least=0.0):
    """A claim that figures are above others, which holds, or does not, where the difference is certain.

    Args:
        claim: Text.
        more: List of what `spread` returned. The sum of their means is compared.
        less: Likewise.
        least: By how much they are above the others.
    """
    value, error = difference(more, less)
    verdict = UNDECIDED
    if error is not None and abs(value - least) > CERTAIN * error:
        verdict = HOLDS if value > least else FAILS
    return {"claim": claim, "difference": value, "error": error, "verdict": verdict}


def alike(claim, first, second, margin):
    """A claim that two figures are alike.

    It holds where the difference is within the margin with all that its error leaves open, so not because the error is
    large; it does not hold where there is a difference for certain that may be beyond the margin.

    Args:
        claim: Text.
        first: What `spread` returned.
        second: Likewise.
        margin: By how much figures may differ that are alike.
    """
    value, error = difference([first], [second])
    verdict = UNDECIDED
    if error is not None and abs(value) + CERTAIN * error <= margin:
        verdict = HOLDS
    elif error is not None and abs(value) > CERTAIN * error:
        verdict = FAILS
    return {"claim": claim, "difference": value, "error": error, "verdict": verdict}


def difference(more, less):
    """The difference of the sums of the means of two lists of spreads; its standard error, None with single seeds."""
    figures = [*more, *less]
    value = sum(each["mean"] for each in more) - sum(each["mean"] for each in less)
    if any(each["deviation"] is None for each in figures):
        return value, None
    return value, math.sqrt(sum(each["deviation"] ** 2 / len(each["runs"]) for each in figures))


def finding(claim):
    """What was found, as text."""
    if "mean" in claim:
        return f"{claim['mean']:.2f}"
    return f"{claim['difference']:+.2f}" + ("" if claim["error"] is None else f" ± {claim['error']:.2f}")


def judged(title, claims):
    """Claims as a table with a title; nothing if there are none."""
    if not claims:
        return ""
    rows = [[each["claim"], finding(each), each["verdict"]] for each in claims]
    return f"\n{title}\n\n{markdown(['', 'found', ''], rows)}\n{RULE}\n"


def draw_curves(axis, curves, title, color=None):
    """Draws the mean of curves, `[seeds, epochs]`, from epoch 1, and the range between the lowest and the highest."""
    epochs = np.arange(1, curves.shape[1] + 1)
    (line,) = axis.plot(epochs, curves.mean(axis=0), label=title, color=color)
    axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.2)
    axis.locator_params(axis="x", integer=True)
