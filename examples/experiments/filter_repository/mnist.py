# SPDX-License-Identifier: Apache-2.0
"""Classifies digits with generated filters: tables 1 and 2 of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.mnist --processes 2
    python -m examples.experiments.filter_repository.mnist --only baseline encoder20 --seeds 0 1 2 3 4

Trains the network whose two convolutions have filters generated from the features of an autoencoder, with different
numbers of features (`encoder_channels`, n_enc in the paper) and of base filters (s in the paper), and its baseline, on
all of MNIST. Writes the tables with mean and deviation over the seeds and the results of the paper, which are single
runs. Judges the targets after epochs 1 and 20, and draws the accuracy by epoch. The last column of the tables is the
accuracy of images with the filters of other images.

A run is a variant with a seed. Finished runs are kept and interrupted runs continue, so the same command continues the
sweep at any time. Processes with the same `--out` share the sweep: `--processes` starts several, each
with a part of the cores, and more can be started by hand.

The paper trains for 20 epochs and reports neither optimizer nor batch size; this script uses Adam with a cosine and
batches of 32. Generated convolutions have a trained bias, like the convolutions of the baseline. The formulas of the
paper have no bias (`--no-use-bias`).

If MNIST is not found and cannot be downloaded, digits are drawn with fonts: docs/guide/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.1.
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import keras

from examples.experiments import data
from examples.experiments.core import options, run, sweep
from examples.experiments.filter_repository import mnist_tables, runs
from keras_dynfilter import models

SMOKE = {
    "only": ["baseline", "encoder5"],
    "seeds": [0],
    "epochs": 2,
    "train_images": 64,
    "test_images": 64,
    "source": "rendered",
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    sweep.add_options(parser, mnist_tables.VARIANTS, "outputs/repository_mnist")
    runs.add_options(parser, epochs=20, batch_size=32)
    add = parser.add_argument
    text = "train a bias of generated convolutions, as the baseline has"
    add("--use-bias", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--source", choices=("auto", "mnist", "rendered"), default="auto", help="source of the digits")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} mnist/")
    return sweep.parse(parser, arguments, SMOKE)


def load(args: argparse.Namespace) -> tuple[tuple, tuple]:
    """Returns `(train, test)`, each images `[count, 28, 28, 1]`, uint8, and labels `[count]`."""
    return runs.load_parts(args, data.load_mnist)


def build(variant: str, use_bias: bool) -> keras.Model:
    """Builds the network of a variant."""
    arguments = mnist_tables.VARIANTS[variant].arguments
    if arguments is None:
        return models.repository_mnist_baseline()
    return models.repository_mnist(**arguments, use_bias=use_bias)


def train_run(experiment: run.Experiment, variant: str, seed: int, train: tuple, test: tuple) -> dict[str, Any]:
    """Trains a variant from a seed, or continues to train it. Returns the description of the run."""
    generated = mnist_tables.VARIANTS[variant].arguments is not None
    build_network = functools.partial(build, variant, experiment.args.use_bias)
    return runs.train_classifier(experiment, variant, seed, build_network, generated, train, test)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all runs and reports on them. Returns the exit status."""
    report = functools.partial(sweep.report_accuracies, mnist_tables)
    return sweep.main(parse(arguments), arguments, __spec__.name, load, train_run, report)


if __name__ == "__main__":
    sweep.run_script(main)
