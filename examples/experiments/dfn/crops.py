# SPDX-License-Identifier: Apache-2.0
"""What the experiments on photographs share: crops at fixed places to test on, their errors, how these are printed."""

import argparse

import numpy as np

from examples.experiments.core import common

BATCH = 32


def add_options(parser, synthetic):
    """Adds the options of these experiments; `synthetic` names what is made."""
    add = parser.add_argument
    add("--size", type=common.positive_int, default=64, help="rows and columns of the crops")
    add("--tied", action="store_true", help="no bias of its own at every position: images may be of any size")
    add("--synthetic", action="store_true", help="made data: textures that move; also where no others are found")
    add(
        "--flow-truth",
        action=argparse.BooleanOptionalAction,
        help=f"compare what the filters say with the truth of {synthetic}; by default if these are trained on",
    )


def spread(last, count):
    """`count` integers from 0 to `last`, evenly spread and different; fewer where there are not as many."""
    return np.unique(np.linspace(0, last, count).round().astype(int)) if count > 1 else np.array([last // 2])


def places(height, width, size, name="images"):
    """Corners (row, column) of crops that cover an image with as little overlap as they can.

    Args:
        height: Rows of the image.
        width: Columns of it.
        size: Rows and columns of a crop.
        name: What the image is called in the error.

    Raises:
        ValueError: The image is smaller than a crop.
    """
    if min(height, width) < size:
        expected = f"Expected {name} to be such that crops of {size} x {size} fit into"
        raise ValueError(f"{expected}. Received: {height} rows and {max(0, width)} columns to crop from")
    rows, columns = (spread(extent - size, -(-extent // size)) for extent in (height, width))
    return [(row, column) for row in rows for column in columns]


def batches(inputs, targets):
    """Arrays in batches `(inputs, targets)`."""
    for first in range(0, len(inputs), BATCH):
        yield inputs[first : first + BATCH], targets[first : first + BATCH]


def predict(network, inputs):
    """What a network makes of a batch, without a trace, which would take longer for a few batches of several shapes."""
    return network(inputs).numpy()


def errors(predictors, groups):
    """Squared errors, mean per pixel x 64 x 64.

    Args:
        predictors: Functions of inputs that return predictions, by name.
        groups: `(inputs, targets)` by name, arrays.

    Returns:
        By group, and `"all"` of all together, what `common.errors_per_image` returns.
    """
    figures = {
        name: common.errors_per_image(common.squared_error, predictors, batches(*arrays))
        for name, arrays in groups.items()
    }
    return {"all": pooled(list(figures.values())), **figures}


def pooled(groups):
    """The errors of all images of several groups together."""
    weights = [next(iter(group.values()))["images"] for group in groups]

    def average(name, key):
        return np.average([group[name][key] for group in groups], axis=0, weights=weights).tolist()

    return {
        name: {"mean": average(name, "mean"), "per_frame": average(name, "per_frame"), "images": sum(weights)}
        for name in groups[0]
    }


def print_errors(test, networks, paper):
    """Prints errors by group.

    Args:
        test: What `errors` returns.
        networks: The trained networks, by name.
        paper: The errors that the paper gives, by name.
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
