# SPDX-License-Identifier: Apache-2.0
"""Computes the figures that the papers report: errors per image, accuracies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PIXELS = 64 * 64


def errors_per_image(
    error: Callable, predictors: Mapping[str, Callable], batches: Iterable[tuple[Any, Any]], pixels: int = PIXELS
) -> dict[str, dict[str, Any]]:
    """Computes the errors of predictions as the papers report them: the mean per pixel times a number of pixels.

    Args:
        error: Function of targets and predictions that returns the error of every pixel, `[batch, ..., height, width]`.
        predictors: Functions, by name. Each takes a batch of inputs and returns predictions.
        batches: Iterable of `(inputs, targets)`; targets are `[batch, frames, height, width, 1]` or
            `[batch, height, width, 1]`.
        pixels: Factor of the mean per pixel; 64 x 64, as in the papers, for images of any size.

    Returns:
        By name, `{"mean": error, "per_frame": [error of every frame], "images": number of images}`.
    """
    sums, images = {}, 0
    for inputs, targets in batches:
        images += int(np.prod(targets.shape[:-3]))
        for name, predict in predictors.items():
            values = np.asarray(error(targets, predict(inputs)), np.float64)
            per_frame = values.mean(axis=(-2, -1)).sum(axis=0)  # a number, or one per frame
            sums[name] = sums.get(name, 0.0) + np.atleast_1d(per_frame)
    figures = {}
    for name, frames in sums.items():
        per_frame = pixels * len(frames) / images * frames
        figures[name] = {"mean": float(per_frame.mean()), "per_frame": per_frame.tolist(), "images": images}
    return figures


def accuracies(batches: Iterable[tuple[Any, Any]], top: Sequence[int] = (1,)) -> list[float]:
    """Computes accuracies in percent: how often the label is among the classes with the highest scores.

    Args:
        batches: Iterable of `(scores, labels)`, `[batch, classes]` and `[batch]`.
        top: Numbers of classes with the highest scores; one accuracy is returned for each number.
    """
    count, correct = 0, np.zeros(len(top))
    for scores, labels in batches:
        order = np.argsort(-np.asarray(scores), axis=-1, kind="stable")
        matches = order == np.asarray(labels).reshape(-1, 1)
        correct += [matches[:, :number].sum() for number in top]
        count += len(matches)
    return (100 * correct / count).tolist()
