# SPDX-License-Identifier: Apache-2.0
"""Makes table 3 and figure 3 of the filter repository paper from our errors, judges the claims, and draws faces."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from examples.experiments.core import markdown as md
from examples.experiments.core import statistics
from keras_dynfilter import inspection


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network of the tables, and the faces that it is trained on.

    Attributes:
        filters: Channels of its convolutions.
        rotated: Whether faces are rotated.
        generated: Whether filters are generated.
        paper: Largest error of the paper, in percent of the inter-ocular distance. It reports no mean errors.
    """

    filters: int
    rotated: bool
    generated: bool
    paper: float

    @property
    def faces(self) -> str:
        return ("D-Rot-FG" if self.generated else "D-Rot") if self.rotated else "D-Align"

    @property
    def title(self) -> str:
        return f"Model{self.filters}, {self.faces}"


VARIANTS = {
    "model32_aligned": Variant(32, False, False, 49.11),
    "model32_rotated": Variant(32, True, False, 111.17),
    "model32_rotated_generated": Variant(32, True, True, 68.60),
    "model64_aligned": Variant(64, False, False, 58.41),
    "model64_rotated": Variant(64, True, False, 105.01),
    "model64_rotated_generated": Variant(64, True, True, 46.65),
}
KINDS = {"mean": "mean error", "max": "largest error"}
SETS = ("D-Align", "D-Rot", "D-Rot-FG")


def summarize(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns errors in percent of the inter-ocular distance, of the networks and of the mean landmarks, by variant.

    Args:
        runs: Descriptions of the finished runs.
    """
    return {
        variant: {
            **statistics.summarize_variant(VARIANTS[variant].title, same),
            "epochs": len(same[0]["history"]),
            **{
                kind: statistics.summarize_seeds([run["errors"][kind] for run in same]) for kind in (*KINDS, "max_face")
            },
            "mean_landmarks": same[0]["mean_landmark_errors"],
        }
        for variant, same in statistics.by_variant(runs, VARIANTS).items()
    }


def check_claims(summary: dict[str, Any]) -> list[statistics.Claim]:
    """Judges the claims of the paper: returns a list of claims of `statistics`.

    Claims about variants without runs are left out.
    """
    claims = []
    for kind, title in KINDS.items():
        orders = []
        for width in (32, 64):
            aligned, rotated, generated = (
                f"model{width}_{name}" for name in ("aligned", "rotated", "rotated_generated")
            )
            orders.append((f"Model{width}: rotated faces have a larger {title}", [rotated], [aligned]))
            orders.append((f"Model{width}: generated filters reduce the {title}", [rotated], [generated]))
        gain32, gain64 = ((f"model{width}_rotated", f"model{width}_rotated_generated") for width in (32, 64))
        # gain32 > gain64, with the differences rearranged to sums
        orders.append((f"Model32 gains more than Model64, {title}", [gain32[0], gain64[1]], [gain32[1], gain64[0]]))
        for text, higher, lower in orders:
            if {*higher, *lower} <= set(summary):
                sides = ([summary[name][kind] for name in names] for names in (higher, lower))
                claims.append(statistics.judge_order(text, *sides))
    return claims


def markdown(summary: dict[str, Any], claims: list[statistics.Claim]) -> str:
    """Returns errors and claims as Markdown."""
    head = [
        "",
        "parameters",
        "seeds",
        "epochs",
        "mean error",
        "largest",
        "paper, largest",
        "of a face",
        "mean landmarks",
    ]
    rows = [
        [
            figures["title"],
            f"{figures['parameters']:,}",
            str(len(figures["seeds"])),
            str(figures["epochs"]),
            md.mean_and_deviation(figures["mean"]),
            md.mean_and_deviation(figures["max"]),
            f"{VARIANTS[variant].paper:.2f}",
            md.mean_and_deviation(figures["max_face"]),
            f"{figures['mean_landmarks']['mean']:.2f}",
        ]
        for variant, figures in summary.items()
    ]
    text = "Errors in percent of the inter-ocular distance; `of a face`: the largest mean of the five landmarks of a\n"
    text += "face; `mean landmarks`: the mean error of the mean landmarks of the training faces\n\n"
    text += md.table(head, rows)
    return text + md.claims("Claims of the paper, in percent of the inter-ocular distance", claims)


def errors_figure(summary: dict[str, Any]):
    """Draws mean and largest errors by network and set: bars, points for the seeds, and crosses for the paper."""
    drawn = inspection.new_figure(10, 4)
    for axis, (kind, title) in zip(drawn.subplots(1, 2), KINDS.items()):
        for variant, figures in summary.items():
            chosen = VARIANTS[variant]
            number = SETS.index(chosen.faces)
            place = (chosen.filters == 64) + 0.27 * (number - 1)
            axis.bar(place, figures[kind]["mean"], 0.25, color=f"C{number}")
            axis.plot([place] * len(figures["seeds"]), figures[kind]["values"], ".", color="black")
            if kind == "max":
                axis.plot(place, chosen.paper, "x", color="black")
        axis.set_xticks([0, 1], ["Model32", "Model64"])
        axis.set(xlim=(-0.6, 1.6), ylabel=f"{title}, % of the inter-ocular distance")
        axis.grid(axis="y", alpha=0.3)
    drawn.axes[1].set(title="crosses: the paper")
    for number, name in enumerate(SETS):
        drawn.axes[0].bar(0, 0, color=f"C{number}", label=name)
    drawn.axes[0].legend()
    return drawn


def faces_figure(runs: Iterable[dict[str, Any]], images: np.ndarray, landmarks: np.ndarray):
    """Draws test faces with the true landmarks and the landmarks that networks of one seed found; the worst is last.

    Args:
        runs: Descriptions of the finished runs.
        images: `[2, faces, height, width, 3]`, uint8: aligned, rotated.
        landmarks: `[2, faces, 5, 2]`, x and y in pixels.
    """
    rows = {variant: same[0] for variant, same in statistics.by_variant(runs, VARIANTS).items()}
    columns = max(len(run["shown"]["faces"]) for run in rows.values())
    drawn = inspection.new_figure(1.25 * columns, 1.3 * len(rows) + 0.3)
    for line, (variant, run) in zip(drawn.subplots(len(rows), columns, squeeze=False), rows.items()):
        rotated, shown = int(VARIANTS[variant].rotated), run["shown"]
        for axis in line:
            axis.set(xticks=[], yticks=[])
        for axis, face, located in zip(line, shown["faces"], np.array(shown["landmarks"])):
            axis.imshow(images[rotated, face])
            axis.plot(
                *landmarks[rotated, face].T, "o", markersize=4, markerfacecolor="none", color="lime", label="true"
            )
            axis.plot(*located.T, "x", markersize=4, color="red", label="found")
        line[0].set_ylabel(VARIANTS[variant].title.replace(", ", "\n"), fontsize=8)
    drawn.axes[columns - 1].set_title("the worst", fontsize=8)
    drawn.axes[0].set_title("circles: true", fontsize=8)
    drawn.axes[1].set_title("crosses: found", fontsize=8)
    return drawn
