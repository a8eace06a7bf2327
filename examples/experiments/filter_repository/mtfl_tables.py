# SPDX-License-Identifier: Apache-2.0
"""Errors of landmarks, as in figure 3 and table 3 of the filter repository paper, its claims, and faces."""

import dataclasses

import numpy as np

from examples.experiments.core import statistics
from keras_dynfilter import inspection


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network of the tables and what it is trained on.

    Attributes:
        filters: Channels of its convolutions.
        turned: Whether faces are turned.
        generated: Whether filters are generated.
        paper: The paper's largest error, in percent of the distance of the eyes. It prints no mean ones.
    """

    filters: int
    turned: bool
    generated: bool
    paper: float

    @property
    def faces(self):
        return ("D-Rot-FG" if self.generated else "D-Rot") if self.turned else "D-Align"

    @property
    def title(self):
        return f"Model{self.filters}, {self.faces}"


VARIANTS = {
    "m32_align": Variant(32, False, False, 49.11),
    "m32_rot": Variant(32, True, False, 111.17),
    "m32_rot_fg": Variant(32, True, True, 68.60),
    "m64_align": Variant(64, False, False, 58.41),
    "m64_rot": Variant(64, True, False, 105.01),
    "m64_rot_fg": Variant(64, True, True, 46.65),
}
KINDS = {"mean": "mean error", "max": "largest error"}
SETS = ("D-Align", "D-Rot", "D-Rot-FG")


def summarize(cells):
    """By variant: errors in percent of the distance of the eyes, and those of the mean landmarks of the training faces.

    Args:
        cells: What is known of the finished cells, as dicts.
    """
    return {
        variant: {
            **statistics.beginning(VARIANTS[variant].title, runs),
            "epochs": len(runs[0]["history"]),
            **{kind: statistics.spread([run["errors"][kind] for run in runs]) for kind in (*KINDS, "max_face")},
            "of_the_mean": runs[0]["errors_of_the_mean"],
        }
        for variant, runs in statistics.by_variant(cells, VARIANTS).items()
    }


def check_claims(summary):
    """What the paper claims, and whether it holds here: a list of what `tables.above` returns.

    Claims of which a variant is missing are left out.
    """
    claims = []
    for kind, title in KINDS.items():
        orders = []
        for width in (32, 64):
            align, turned, generated = (f"m{width}_{name}" for name in ("align", "rot", "rot_fg"))
            orders.append((f"Model{width}: turned faces have a larger {title}", [turned], [align]))
            orders.append((f"Model{width}: generated filters make the {title} smaller", [turned], [generated]))
        gains = ["m32_rot", "m64_rot_fg"], ["m32_rot_fg", "m64_rot"]  # of the one above that of the other
        orders.append((f"Model32 gains more than Model64, {title}", *gains))
        for text, more, less in orders:
            if {*more, *less} <= set(summary):
                found = ([summary[name][kind] for name in names] for names in (more, less))
                claims.append(statistics.above(text, *found))
    return claims


def markdown(summary, claims):
    """Errors and claims as Markdown."""
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
            statistics.text(figures["mean"]),
            statistics.text(figures["max"]),
            f"{VARIANTS[variant].paper:.2f}",
            statistics.text(figures["max_face"]),
            f"{figures['of_the_mean']['mean']:.2f}",
        ]
        for variant, figures in summary.items()
    ]
    text = "Errors in percent of the distance of the eyes; `of a face`: the largest mean of the five landmarks of a\n"
    text += "face; `mean landmarks`: the error if every face had the mean landmarks of the training faces\n\n"
    text += statistics.markdown(head, rows)
    return text + statistics.judged("What the paper claims, in percent of the distance of the eyes", claims)


def errors_figure(summary):
    """Bars of mean and largest errors by network and set, a point for each seed; crosses: the paper."""
    drawn = inspection.new_figure(10, 4)
    for axis, (kind, title) in zip(drawn.subplots(1, 2), KINDS.items()):
        for variant, figures in summary.items():
            chosen = VARIANTS[variant]
            number = SETS.index(chosen.faces)
            place = (chosen.filters == 64) + 0.27 * (number - 1)
            axis.bar(place, figures[kind]["mean"], 0.25, color=f"C{number}")
            axis.plot([place] * len(figures["seeds"]), figures[kind]["runs"], ".", color="black")
            if kind == "max":
                axis.plot(place, chosen.paper, "x", color="black")
        axis.set_xticks([0, 1], ["Model32", "Model64"])
        axis.set(xlim=(-0.6, 1.6), ylabel=f"{title}, % of the distance of the eyes")
        axis.grid(axis="y", alpha=0.3)
    drawn.axes[1].set(title="crosses: the paper")
    for number, name in enumerate(SETS):
        drawn.axes[0].bar(0, 0, color=f"C{number}", label=name)
    drawn.axes[0].legend()
    return drawn


def faces_figure(cells, images, landmarks):
    """Test faces with true landmarks and those that the networks of one seed found; the last one has the largest error.

    Args:
        cells: What is known of the finished cells, as dicts.
        images: `[2, faces, height, width, 3]`, uint8: aligned, turned.
        landmarks: `[2, faces, 5, 2]`, x and y in pixels.
    """
    rows = {variant: runs[0] for variant, runs in statistics.by_variant(cells, VARIANTS).items()}
    columns = max(len(cell["shown"]["faces"]) for cell in rows.values())
    drawn = inspection.new_figure(1.25 * columns, 1.3 * len(rows) + 0.3)
    for line, (variant, cell) in zip(drawn.subplots(len(rows), columns, squeeze=False), rows.items()):
        turned, shown = int(VARIANTS[variant].turned), cell["shown"]
        for axis in line:
            axis.set(xticks=[], yticks=[])
        for axis, face, found in zip(line, shown["faces"], np.array(shown["landmarks"])):
            axis.imshow(images[turned, face])
            axis.plot(*landmarks[turned, face].T, "o", markersize=4, markerfacecolor="none", color="lime", label="true")
            axis.plot(*found.T, "x", markersize=4, color="red", label="found")
        line[0].set_ylabel(VARIANTS[variant].title.replace(", ", "\n"), fontsize=8)
    drawn.axes[columns - 1].set_title("the worst", fontsize=8)
    drawn.axes[0].set_title("circles: true", fontsize=8)
    drawn.axes[1].set_title("crosses: found", fontsize=8)
    return drawn
