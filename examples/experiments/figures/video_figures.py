# SPDX-License-Identifier: Apache-2.0
"""Draws figures of predicted video as in Dynamic Filter Networks (https://arxiv.org/abs/1605.09673)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from examples.experiments.figures.layout import LABELS, LINE, check_grey, check_shape, compact_figure, frame_size
from examples.experiments.figures.sequences import sequence_grid
from keras_dynfilter.inspection import flow_to_color, show_color_wheel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETWEEN = 0.2  # inches between two examples


def moving_mnist_figure(
    inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, baseline: np.ndarray | None = None
) -> "Figure":
    """Draws figure 5 of the paper: the frames that the network has seen, the frames that followed, and its predictions.

    Args:
        inputs: Frames in [0, 1], `[examples, input_frames, height, width, 1]`.
        targets: The frames that followed, `[examples, output_frames, height, width, 1]`.
        predictions: In the shape of `targets`.
        baseline: Predictions of a second network, in the shape of `targets`. None: there is no row for them.

    Returns:
        A `matplotlib.figure.Figure` with the examples below each other.

    Raises:
        ValueError: Shapes do not agree.
    """
    sequences = dict(inputs=inputs, targets=targets, predictions=predictions, baseline=baseline)
    return _digits_figure({"": sequences})


def out_of_domain_figure(groups: dict[str, dict[str, Any]]) -> "Figure":
    """Draws figure 6 of the paper: like figure 5, but for numbers of digits that the network was not trained on.

    Args:
        groups: For each heading, the arguments of `moving_mnist_figure`: `{"1 digit": {...}, ...}`.

    Returns:
        A `matplotlib.figure.Figure` with the groups below each other.

    Raises:
        ValueError: There is no group, or shapes do not agree.
    """
    if not groups:
        raise ValueError(f"Expected `groups` not to be empty. Received: groups={groups!r}")
    return _digits_figure(groups)


def _digits_figure(groups):
    blocks = []
    for heading, sequences in groups.items():
        rows = _sequences(**sequences)
        for example in range(len(rows["input"])):
            blocks.append((heading if example == 0 else "", {name: frames[example] for name, frames in rows.items()}))
    columns = max(len(frames) for _, rows in blocks for frames in rows.values())
    heights = []
    for heading, rows in blocks:
        width, height = frame_size(rows["input"], columns, 1.0)
        heights += [len(rows) * (height + 0.04) + (3.5 if heading else 2) * LINE, BETWEEN]
    figure = compact_figure(LABELS + columns * (width + 0.04), sum(heights[:-1]))
    parts = figure.subfigures(len(heights) - 1, 1, height_ratios=heights[:-1], squeeze=False)[::2, 0]
    for part, (heading, rows) in zip(parts, blocks):
        if heading:
            part.suptitle(heading, fontweight="bold")
        sequence_grid(part, rows, {"input": _past(len(rows["input"])), "truth": _future(len(rows["truth"]))})
    return figure


def highway_figure(
    inputs: np.ndarray,
    targets: np.ndarray,
    predictions: np.ndarray,
    flow: np.ndarray,
    baseline: np.ndarray | None = None,
    true_flow: np.ndarray | None = None,
    max_magnitude: float | None = None,
    style: str = "hsv",
) -> "Figure":
    """Draws figure 7 of the paper: predicted video, and the optical flow that the generated filters imply.

    Args:
        inputs: Frames in [0, 1], `[examples, input_frames, height, width, 1]`.
        targets: The frames that followed, `[examples, output_frames, height, width, 1]`.
        predictions: In the shape of `targets`.
        flow: `filters_to_flow` of the filters, `[examples, output_frames, height, width, 2]`.
        baseline: Predictions of a second network, in the shape of `targets`. None: there is no row for them.
        true_flow: In the shape of `flow`, not finite where it is unknown. None: there is no row for it.
        max_magnitude: The length in pixels of a vector in full colour. None: the length of the longest vector.
        style: The `style` of `flow_to_color`.

    Returns:
        A `matplotlib.figure.Figure` with the examples next to each other.

    Raises:
        ValueError: Shapes do not agree.
    """
    rows = _sequences(inputs, targets, predictions, baseline)
    flows = {"flow": check_shape(flow, "flow", rows["truth"].shape[:4] + (2,))}
    if true_flow is not None:
        flows["true flow"] = check_shape(true_flow, "true_flow", rows["truth"].shape[:4] + (2,))
    if max_magnitude is None:
        lengths = np.concatenate([np.hypot(vectors[..., 0], vectors[..., 1]).ravel() for vectors in flows.values()])
        max_magnitude = float(lengths[np.isfinite(lengths)].max(initial=0)) or 1.0
    rows.update({name: flow_to_color(vectors, style, max_magnitude) for name, vectors in flows.items()})

    examples, past, future = len(rows["input"]), _past(rows["input"].shape[1]), _future(rows["truth"].shape[1])
    group = max(len(past), len(future))
    columns = examples * group + 1  # the last column holds the colour wheel
    width, height = frame_size(rows["input"], columns, 1.3)
    figure = compact_figure(
        LABELS + (columns + 0.15 * examples) * (width + 0.04), len(rows) * (height + 0.04) + 2 * LINE
    )
    titles = {"input": _in_groups([past] * examples, group, ""), "truth": _in_groups([future] * examples, group, "")}
    rows = {name: _in_groups(frames, group, None) for name, frames in rows.items()}
    rows[list(rows)[-1]].append(None)
    axes = sequence_grid(figure, rows, titles, group=group)
    show_color_wheel(axes[-1, -1], style, max_magnitude)
    return figure


def _sequences(inputs, targets, predictions, baseline=None):
    """Checks the sequences and returns them by row label."""
    rows = {"input": check_grey(inputs, "inputs", 5), "truth": check_grey(targets, "targets", 5)}
    inputs, targets = rows.values()
    if inputs.shape[:1] + inputs.shape[2:] != targets.shape[:1] + targets.shape[2:]:
        expected = "Expected `inputs` and `targets` to be as many and of one size"
        raise ValueError(f"{expected}. Received: inputs.shape={inputs.shape}, targets.shape={targets.shape}")
    rows["prediction"] = check_shape(predictions, "predictions", targets.shape)
    if baseline is not None:
        rows["baseline"] = check_shape(baseline, "baseline", targets.shape)
    return rows


def _past(count):
    return [f"$t-{before}$" if before else "$t$" for before in range(count - 1, -1, -1)]


def _future(count):
    return [f"$t+{after}$" for after in range(1, count + 1)]


def _in_groups(examples, group, blank):
    """Joins the frames of all examples in one list, after filling each example up to `group` entries with `blank`."""
    return [entry for frames in examples for entry in [*frames, *[blank] * (group - len(frames))]]
