# SPDX-License-Identifier: Apache-2.0
"""Digits with generated filters: tables 1 and 2 of "Learning to Generate Filters for Convolutional Neural Networks".

    python examples/repository_mnist.py --processes 2
    python examples/repository_mnist.py --only baseline n20 --seeds 0 1 2 3 4

Trains the network whose two convolutions are generated from the features of an autoencoder, with different numbers of
features (n_enc) and of base filters (s), and its static baseline, on all of MNIST. Writes the tables with mean and
spread over the seeds beside the paper's, which are single runs, says whether what was aimed at was reached, and draws
the accuracy by epoch. The last column is the accuracy when each image is seen with the filters of another one.

A variant and a seed make a cell of the grid. Finished cells are kept, and one that was interrupted continues where it
was, so the same command goes on whenever it is given. Several processes share the grid if they have the same `--out`:
`--processes` starts them, a core each; they may also be started by hand, and at any time.

The paper gives 20 epochs and neither optimizer nor batch size: Adam and 128 here.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.1.
"""

import argparse
import functools
import math
import pathlib

import keras
import numpy as np

import common
import grid
import harness
import repository_tables
import training
from keras_dynfilter import data, models

GREY = ((0.0,), (1.0,))  # of pixels: they stay in [0, 1], which the reconstruction is compared with
SMOKE = {"only": ["baseline", "n5"], "seeds": [0], "epochs": 2, "batch_size": 32, "train_images": 64, "test_images": 64}
FREE = ("only", "seeds", "processes")  # beside those of the harness: what a grid may be continued with


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    variants = repository_tables.VARIANTS
    add("--only", nargs="+", choices=variants, default=[*variants], metavar="VARIANT", help="; ".join(variants))
    add("--seeds", nargs="+", type=common.seed, default=[0, 1, 2], help="a training of every variant from each")
    add("--epochs", type=common.positive_int, default=20, help="passes over the training images")
    add("--batch-size", type=common.positive_int, default=128, help="images of a step")
    add("--learning-rate", type=common.positive_float, default=1e-3, help="of Adam")
    add("--use-bias", action="store_true", help="generated convolutions have a trained bias, too, as the baseline has")
    add("--train-images", type=common.positive_int, help="train on the first ones only")
    add("--test-images", type=common.positive_int, help="test on the first ones only")
    add("--data-dir", metavar="DIR", help="folder with mnist/")
    add(
        "--deterministic",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="deterministic ops, so that a cell ends with the same bits, interrupted or not",
    )
    add("--processes", type=common.positive_int, default=1, help="trainings side by side, which share the cores")
    add(
        "--out", type=pathlib.Path, default=pathlib.Path("outputs/repository_mnist"), help="folder of all files written"
    )
    add("--smoke", action="store_true", help="a few steps, to see in seconds that everything works")
    parser.set_defaults(resume=True, seed=0)  # as the harness wants them
    args = harness.parse(parser, arguments, SMOKE)
    for name in ("only", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def load(args):
    """`(train, test)`, each images `[count, 28, 28, 1]`, uint8, and labels `[count]`."""
    limits = {"train": args.train_images, "test": args.test_images}
    return tuple(
        tuple(array[:limit] for array in data.load_mnist(split, args.data_dir)) for split, limit in limits.items()
    )


def cells(args):
    """`{name: (variant, seed)}`, by seed: a grid that is cut short has all variants."""
    return {f"{variant}_seed{seed}": (variant, seed) for seed in args.seeds for variant in args.only}


def build(variant, use_bias):
    arguments = repository_tables.VARIANTS[variant].arguments
    if arguments is None:
        return models.repository_mnist_baseline()
    return models.repository_mnist(**arguments, use_bias=use_bias)


def compile_model(model, learning_rate, generated):
    """Adam on the sum of both losses, as in the paper; the baseline reconstructs nothing."""
    loss = "sparse_categorical_crossentropy"
    loss = {"classes": loss, "reconstruction": "binary_crossentropy"} if generated else loss
    model.compile(keras.optimizers.Adam(learning_rate), loss, jit_compile=False)


class TestAccuracy(keras.callbacks.Callback):
    """Adds the accuracy on the test images, in percent, to the metrics of every epoch."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def on_epoch_end(self, epoch, logs=None):
        logs["test_accuracy"] = accuracy(self.model.network, self.images, self.labels)


def accuracy(network, images, labels, filters_of=None, batch_size=500):
    """Accuracy in percent; with `filters_of`, of a `models.repository_swap` that has the filters of those images."""
    right = 0
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        inputs = data.normalized(images[part], GREY)
        if filters_of is not None:
            inputs = {"images": inputs, "filters_of": data.normalized(filters_of[part], GREY)}
        outputs = network(inputs, training=False)
        classes = outputs["classes"] if isinstance(outputs, dict) else outputs
        right += int(np.sum(np.argmax(classes, axis=-1) == labels[part]))
    return 100 * right / len(images)


def others(images, seed=0):
    """`images` in another order, a random one in which none is where it was."""
    order = np.random.default_rng(seed).permutation(len(images))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)  # along one circle
    return images[moved]


def train_cell(run, variant, seed, train, test):
    """Trains a variant from a seed, or what is left of it; returns what is to be known of it."""
    args = run.args
    generated = repository_tables.VARIANTS[variant].arguments is not None
    epoch = math.ceil(len(train[0]) / args.batch_size)

    def batches(first, end):
        steps = data.image_batches(*train, args.batch_size, end, first, seed, pad=0, flip=False, statistics=GREY)
        if not generated:
            return steps
        return steps.map(lambda images, labels: (images, {"classes": labels, "reconstruction": images}))

    print(f"\n{variant}, seed {seed}: {args.epochs} epochs of {epoch} steps of {args.batch_size}", flush=True)
    trained = training.train(
        f"{variant}_seed{seed}",
        functools.partial(build, variant, args.use_bias),
        functools.partial(compile_model, learning_rate=args.learning_rate, generated=generated),
        batches,
        total=args.epochs * epoch,
        epoch=epoch,
        out=args.out / "cells",
        seed=seed,
        callbacks=[TestAccuracy(*test)],
        resume=True,
        settings=run.settings,
    )
    network, (images, labels) = trained.network, test
    swapped = accuracy(models.repository_swap(network), images, labels, others(images)) if generated else None
    figures = harness.training_figures(trained)
    figures["parameters"] = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    last = figures["history"][-1]["test_accuracy"]
    print(f"{variant}, seed {seed}: {last:.2f} % in {figures['training_seconds'] / 60:.1f} minutes", flush=True)
    return {"variant": variant, "seed": seed, "swapped": swapped, **figures, "settings": run.settings}


def report(finished):
    """What goes into the results, tables and figure, of finished cells."""
    summary = repository_tables.summarize(finished)
    targets = repository_tables.check_targets(summary)
    content = {"variants": summary, "targets": targets}
    return content, repository_tables.markdown(summary, targets), repository_tables.figure(summary)


def main(arguments=None):
    """Returns the exit status."""
    args = parse(arguments)
    return grid.run(args, arguments, __file__, FREE, load, cells(args), train_cell, report)


if __name__ == "__main__":
    grid.run_script(main)
