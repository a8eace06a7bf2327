# SPDX-License-Identifier: Apache-2.0
"""Cuts images at fixed places into crops to test video and stereo networks on, and computes errors on the crops."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from examples.experiments.core import evaluation, losses, options

BATCH = 32


def add_options(parser: argparse.ArgumentParser, synthetic: str) -> None:
    """Adds the options of the experiments on crops; `synthetic` is the name of the synthetic data in the help."""
    add = parser.add_argument
    add("--size", type=options.positive_int, default=64, help="rows and columns of the crops")
    add("--tied", action="store_true", help="share biases over positions, so that images may have any size")
    add("--synthetic", action="store_true", help="use synthetic textures that move, which also replace missing data")
    add(
        "--flow-truth",
        action=argparse.BooleanOptionalAction,
        help=f"compare the motion in the filters with the motion of {synthetic}; by default after training on them",
    )


def evenly_spaced(last: int, count: int) -> np.ndarray:
    """Returns `count` different integers from 0 to `last`, evenly spaced; fewer if the range has fewer."""
    return np.unique(np.linspace(0, last, count).round().astype(int)) if count > 1 else np.array([last // 2])


def corners(height: int, width: int, size: int, name: str = "images") -> list[tuple[int, int]]:
    """Returns corners `(row, column)` of crops that cover an image with as little overlap as possible.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        size: Rows and columns of a crop.
        name: Name of the image in the error.

    Raises:
        ValueError: The image is smaller than a crop.
    """
    if min(height, width) < size:
        expected = f"Expected {name} to be such that crops of {size} x {size} fit into"
        raise ValueError(f"{expected}. Received: {height} rows and {max(0, width)} columns to crop from")
    rows, columns = (evenly_spaced(extent - size, -(-extent // size)) for extent in (height, width))
    return [(row, column) for row in rows for column in columns]


def batches(inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields arrays in batches `(inputs, targets)`."""
    for first in range(0, len(inputs), BATCH):
        yield inputs[first : first + BATCH], targets[first : first + BATCH]


def predict(network, inputs) -> np.ndarray:
    """Returns the predictions for a batch, eagerly: tracing the network would take longer than a few batches."""
    return network(inputs).numpy()


def errors(predictors: Mapping[str, Callable], groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Computes squared errors, mean per pixel x 64 x 64.

    Args:
        predictors: Functions of inputs that return predictions, by name.
        groups: Arrays `(inputs, targets)`, by name.

    Returns:
        What `evaluation.errors_per_image` returns, by group, and for all groups together as `"all"`.
    """
    figures = {
        name: evaluation.errors_per_image(losses.squared_error, predictors, batches(*arrays))
        for name, arrays in groups.items()
    }
    return {"all": _pooled(list(figures.values())), **figures}


def _pooled(groups):
    """Returns the errors over the images of all groups."""
    weights = [next(iter(group.values()))["images"] for group in groups]

    def average(name, key):
        return np.average([group[name][key] for group in groups], axis=0, weights=weights).tolist()

    return {
        name: {"mean": average(name, "mean"), "per_frame": average(name, "per_frame"), "images": sum(weights)}
        for name in groups[0]
    }


def print_errors(test: Mapping[str, Any], networks: Mapping[str, Any], paper: Mapping[str, Any]) -> None:
    """Prints errors by group.

    Args:
        test: What `errors` returns.
        networks: The trained networks, by name.
        paper: Errors that the paper reports, by name of the network.
    """
    for group, figures in test.items():
        if group == "all" or len(test) > 2:
            print(f"  {group} ({next(iter(figures.values()))['images']} predicted crops)")
            for name, figure in figures.items():
                frames = figure["per_frame"]
                notes = ["by frame " + " ".join(f"{value:.1f}" for value in frames)] if len(frames) > 1 else []
                if group == "all" and name in networks:
                    notes.append(f"{networks[name].count_params():,} parameters")
                if group == "all" and name in paper:
                    notes.append(f"paper, on its own data: {paper[name]}")
                print(f"    {name:<16} {figure['mean']:8.2f}   {'; '.join(notes)}")
