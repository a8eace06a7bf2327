# SPDX-License-Identifier: Apache-2.0
"""Digits with generated filters: tables 1 and 2 of "Learning to Generate Filters for Convolutional Neural Networks".

    python -m examples.experiments.filter_repository.mnist --processes 2
    python -m examples.experiments.filter_repository.mnist --only baseline n20 --seeds 0 1 2 3 4

Trains the network whose two convolutions are generated from the features of an autoencoder, with different numbers of
features (n_enc) and of base filters (s), and its static baseline, on all of MNIST. Writes the tables with mean and
spread over the seeds beside the paper's, which are single runs, says whether what was aimed at was reached after epochs
1 and 20, as far as the seeds can tell, and draws the accuracy by epoch. The last column is the accuracy when each image
is seen with the filters of another one.

A variant and a seed make a cell of the grid. Finished cells are kept, and one that was interrupted continues where it
was, so the same command goes on whenever it is given. Several processes share the grid if they have the same `--out`:
`--processes` starts them, each with its share of the cores; they may also be started by hand, and at any time.

The paper gives 20 epochs and neither optimizer nor batch size: Adam with a cosine and batches of 32 here. Generated
convolutions have a trained bias, as those of the baseline have; the paper's formulas leave it out (`--no-use-bias`).

Where there is no MNIST and it cannot be downloaded, digits are drawn with fonts: docs/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.1.
"""

import argparse
import functools

from examples.experiments import data
from examples.experiments.core import statistics, sweep
from examples.experiments.filter_repository import mnist_tables, runs
from keras_dynfilter import models

SMOKE = {
    "only": ["baseline", "n5"],
    "seeds": [0],
    "epochs": 2,
    "train_images": 64,
    "test_images": 64,
    "source": "rendered",
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    sweep.add_options(parser, mnist_tables.VARIANTS, "outputs/repository_mnist")
    runs.add_options(parser, epochs=20, batch_size=32)
    add = parser.add_argument
    text = "generated convolutions have a trained bias, as the baseline has"
    add("--use-bias", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--source", choices=("auto", "mnist", "rendered"), default="auto", help="of the digits")
    add("--data-dir", metavar="DIR", help="folder with mnist/")
    return sweep.parse(parser, arguments, SMOKE)


def load(args):
    """`(train, test)`, each images `[count, 28, 28, 1]`, uint8, and labels `[count]`."""
    return runs.load_parts(args, data.load_mnist)


def build(variant, use_bias):
    arguments = mnist_tables.VARIANTS[variant].arguments
    if arguments is None:
        return models.repository_mnist_baseline()
    return models.repository_mnist(**arguments, use_bias=use_bias)


def train_cell(run, variant, seed, train, test):
    """Trains a variant from a seed, or what is left of it; returns what is to be known of it."""
    generated = mnist_tables.VARIANTS[variant].arguments is not None
    make = functools.partial(build, variant, run.args.use_bias)
    return runs.train_classifier(run, variant, seed, make, generated, train, test)


def main(arguments=None):
    """Returns the exit status."""
    report = functools.partial(statistics.report, mnist_tables)
    return sweep.run(parse(arguments), arguments, __file__, load, train_cell, report)


if __name__ == "__main__":
    sweep.run_script(main)
