# SPDX-License-Identifier: Apache-2.0
"""Small photographs with generated filters: figure 4 and the swap test of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.cifar10 --processes 2
    python -m examples.experiments.filter_repository.cifar10 --full --processes 2

Trains the network whose four convolutions are generated from the features of an autoencoder, its static baseline, and
VGG11, on CIFAR-10. Draws the accuracy on training and on test images by epoch, which the paper shows without numbers,
and gives the accuracy when each test image is seen with the filters of another one: 15.24 % in the paper. Says which of
the paper's claims hold here: the baseline underfits, generated filters fit more than 98 % of the training images and
gain on test images (about a point in the paper's figure), as much as VGG11 has. Which of two networks is better takes
several seeds to say.

The default is for two CPU cores: 5,000 training images, one seed. That shows curves, and what the filters of other
images do, but decides little: 5,000 images are easier to fit than all 50,000, so nothing is said of underfitting.
`--full` takes all images, 100 epochs and three seeds; that is for a GPU. The paper gives neither epochs, optimizer,
batch size nor augmentation: Adam with a cosine and 64 images a step here, and images as they are, since those that are
moved at random are hard to fit (`--augment`).

A variant and a seed make a cell of the grid. Finished cells are kept, and one that was interrupted continues where it
was, so the same command goes on whenever it is given. Several processes share the grid if they have the same `--out`.
`repository_analysis.py` looks into a network that was trained, which lies in `OUT/cells`.

Where there is no CIFAR-10, it is downloaded, or else patterns are generated: docs/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.3.
"""

import argparse
import functools

from examples.experiments import data
from examples.experiments.core import common, statistics, sweep
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


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    sweep.add_options(parser, cifar10_figures.VARIANTS, "outputs/repository_cifar10")
    runs.add_options(parser, batch_size=64)
    add = parser.add_argument
    add("--base-filters", type=common.positive_int, help="of each convolution; by default as many as it has filters")
    add("--augment", action="store_true", help="move and mirror training images at random")
    add("--source", choices=("auto", "cifar10", "generated"), default="auto", help="of the images")
    add("--data-dir", metavar="DIR", help="folder with cifar10/")
    return sweep.parse(parser, arguments, SMOKE, RECIPES)


def load(args):
    """`(train, test)`, each images `[count, 32, 32, 3]`, uint8, and labels `[count]`."""
    return runs.load_parts(args, data.load_cifar10)


def build(variant, base_filters):
    if variant == "generated":
        return models.repository_cifar10(base_filters)
    return {"baseline": models.repository_cifar10_baseline, "vgg11": models.vgg11}[variant]()


def train_cell(run, variant, seed, train, test):
    """Trains a variant from a seed, or what is left of it; returns what is to be known of it."""
    make = functools.partial(build, variant, run.args.base_filters)
    how = dict(augment=run.args.augment, watched=cifar10_figures.WATCHED)
    return runs.train_classifier(run, variant, seed, make, variant == "generated", train, test, **how)


def main(arguments=None):
    """Returns the exit status."""
    report = functools.partial(statistics.report, cifar10_figures)
    return sweep.run(parse(arguments), arguments, __file__, load, train_cell, report, free=["recipe"])


if __name__ == "__main__":
    sweep.run_script(main)
