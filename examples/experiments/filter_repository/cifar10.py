# SPDX-License-Identifier: Apache-2.0
"""Classifies small photographs with generated filters: figure 4, swap test of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.cifar10 --processes 2
    python -m examples.experiments.filter_repository.cifar10 --full --processes 2

Trains the network whose four convolutions have filters generated from the features of an autoencoder, its baseline, and
VGG11, on CIFAR-10. Draws the accuracy on training and test images by epoch, which the paper shows in a figure without
numbers, and computes the accuracy of test images with the filters of other images, 15.24 % in the paper. Judges the
claims of the paper: the baseline underfits; generated filters fit more than 98 % of the training images, and improve
the accuracy on test images, by about a point in the figure; VGG11 is as accurate. The order of two networks can only be
judged with several seeds.

The default is for two CPU cores: 5,000 training images and one seed. It shows the curves and the effect of exchanged
filters, and leaves most claims undecided. Underfitting is not judged, since 5,000 images are easier to fit than 50,000.
`--full` uses all images, 100 epochs and three seeds, for a GPU. The paper reports neither epochs, optimizer, batch size
nor augmentation. This script uses Adam with a cosine and batches of 64, and images without augmentation, since shifted
images are hard to fit (`--augment`).

A run is a variant with a seed. Finished runs are kept and interrupted runs continue, so the same command continues the
sweep at any time. Processes with the same `--out` share the sweep. `analysis.py` analyzes a trained network of
`OUT/runs`.

If CIFAR-10 is not found, it is downloaded, or replaced by generated patterns: docs/guide/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.3.
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import keras

from examples.experiments import data
from examples.experiments.core import options, run, sweep
from examples.experiments.filter_repository import cifar10_figures, runs
from keras_dynfilter import models

RECIPES = {
    "reduced": {"epochs": 20, "train_images": 5_000, "seeds": [0]},
    "full": {"epochs": 100, "seeds": [0, 1, 2]},
}
SMOKE = {
    "only": ["baseline", "generated"],
    "seeds": [0],
    "epochs": 2,
    "batch_size": 16,
    "train_images": 32,
    "test_images": 20,
    "base_filters": 2,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    sweep.add_options(parser, cifar10_figures.VARIANTS, "outputs/repository_cifar10")
    runs.add_options(parser, batch_size=64)
    add = parser.add_argument
    text = "base filters of each convolution; by default as many as the convolution has filters"
    add("--base-filters", type=options.positive_int, help=text)
    add("--augment", action="store_true", help="shift and mirror training images at random")
    add("--source", choices=("auto", "cifar10", "generated"), default="auto", help="source of the images")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} cifar10/")
    return sweep.parse(parser, arguments, SMOKE, RECIPES)


def load(args: argparse.Namespace) -> tuple[tuple, tuple]:
    """Returns `(train, test)`, each images `[count, 32, 32, 3]`, uint8, and labels `[count]`."""
    return runs.load_parts(args, data.load_cifar10)


def build(variant: str, base_filters: int | None) -> keras.Model:
    """Builds the network of a variant."""
    if variant == "generated":
        return models.repository_cifar10(base_filters)
    return {"baseline": models.repository_cifar10_baseline, "vgg11": models.vgg11}[variant]()


def train_run(experiment: run.Experiment, variant: str, seed: int, train: tuple, test: tuple) -> dict[str, Any]:
    """Trains a variant from a seed, or continues to train it. Returns the description of the run."""
    build_network = functools.partial(build, variant, experiment.args.base_filters)
    settings = dict(augment=experiment.args.augment, watched=cifar10_figures.WATCHED)
    return runs.train_classifier(
        experiment, variant, seed, build_network, variant == "generated", train, test, **settings
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all runs and reports on them. Returns the exit status."""
    report, module = functools.partial(sweep.report_accuracies, cifar10_figures), __spec__.name
    return sweep.main(parse(arguments), arguments, module, load, train_run, report, free=["recipe"])


if __name__ == "__main__":
    sweep.run_script(main)
