# SPDX-License-Identifier: Apache-2.0
"""What the grids of filter repository networks share: a training on the sum of both losses, accuracy, other filters."""

import math

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import common, harness, sweep, training
from keras_dynfilter import inspection

UNCHANGED = ((0.0,), (1.0,))  # means and deviations: pixels stay in [0, 1], which the reconstruction is compared with


def add_options(parser, batch_size, epochs=None):
    """Adds the options of these trainings, with these defaults; without `epochs`, recipes have them, and `--full`."""
    add = parser.add_argument
    if epochs is None:
        text = "the whole experiment; what it and the reduced one set is RECIPE=VALUE below"
        add("--full", dest="recipe", action="store_const", const="full", default="reduced", help=text)
    add("--epochs", type=common.positive_int, default=epochs, help="passes over the training images")
    add("--batch-size", type=common.positive_int, default=batch_size, help="images of a step")
    add("--learning-rate", type=common.positive_float, default=1e-3, help="of Adam, the highest")
    add("--train-images", type=common.positive_int, help="train on the first ones only")
    add("--test-images", type=common.positive_int, help="test on the first ones only")


def load_parts(args, load):
    """`(train, test)`, the arrays of each, as many as is asked for; `args.source` says then what was found.

    Args:
        args: The arguments.
        load: A loader of `examples.experiments.data`.
    """
    limits, parts = {"train": args.train_images, "test": args.test_images}, []
    for split, limit in limits.items():
        *arrays, args.source = load(split, args.data_dir, args.source, return_source=True)
        parts.append(tuple(array[:limit] for array in arrays))
    return tuple(parts)


class Evaluation(keras.callbacks.Callback):
    """Adds what a function of the network returns, numbers by name, to the metrics of every epoch."""

    def __init__(self, evaluate):
        super().__init__()
        self.evaluate = evaluate

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.evaluate(self.model.network))


def train_network(run, name, build, generated, loss, batches, count, seed, evaluate, *, output="classes"):
    """Trains a network with generated filters, or its twin, from a seed, or what is left of it.

    By Adam, with a rate that falls to zero along a cosine. The loss is that of the paper: of the output, and of the
    reconstruction; the twin reconstructs nothing.

    Args:
        run: A `harness.Run`.
        name: Name of the cell.
        build: Function that returns a new network.
        generated: Whether its filters are generated, so that it reconstructs its images too.
        loss: Loss of the output for Keras.
        batches: Function of the step to start with and of the step to end before that returns a `tf.data.Dataset` of
            images, in [0, 1], and targets.
        count: Number of training images, which make an epoch.
        seed: Seed of the weights.
        evaluate: Function of a network that returns numbers by name; called after every epoch.
        output: Name of the output, if there is a reconstruction beside it.

    Returns:
        A `training.Trained`.
    """
    args, epoch = run.args, math.ceil(count / run.args.batch_size)
    total = args.epochs * epoch
    print(f"\n{name}: {args.epochs} epochs of {epoch} steps of {args.batch_size}", flush=True)

    def compile_model(trainer):
        rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, total)
        losses = {output: loss, "reconstruction": "binary_crossentropy"} if generated else loss
        trainer.compile(keras.optimizers.Adam(rate), losses)

    def steps(first, end):
        made = batches(first, end)
        if not generated:
            return made
        return made.map(lambda images, targets: (images, {output: targets, "reconstruction": images}))

    return training.train(
        name,
        build,
        compile_model,
        steps,
        total=total,
        epoch=epoch,
        out=args.out / "cells",
        seed=seed,
        callbacks=[Evaluation(evaluate)],
        resume=True,
        settings=run.settings,
    )


def train_classifier(run, variant, seed, build, generated, train, test, *, augment=False, watched=0):
    """Trains a cell of a classifier, or what is left of it.

    Args:
        run: A `harness.Run`.
        variant: Name of the variant.
        seed: Seed of weights and order.
        build: As for `train_network`, as is `generated`.
        generated: See there.
        train: Images and labels.
        test: Images and labels, for the accuracy after every epoch.
        augment: Whether training images are moved and mirrored at random.
        watched: Number of training images whose accuracy is measured after every epoch too.

    Returns:
        What is to be known of the cell; `"swapped"` is the accuracy of images with the filters of others.
    """
    args, name = run.args, sweep.cell_name(variant, seed)
    sets = {"test_accuracy": test} | ({"train_accuracy": [each[:watched] for each in train]} if watched else {})

    def batches(first, end):
        how = dict(pad=4 if augment else 0, flip=augment, statistics=UNCHANGED)
        return data.image_batches(*train, args.batch_size, end, first, seed, **how)

    def evaluate(network):
        return {name: accuracy(network, *part) for name, part in sets.items()}

    loss, count = "sparse_categorical_crossentropy", len(train[0])
    trained = train_network(run, name, build, generated, loss, batches, count, seed, evaluate)
    figures = harness.training_figures(trained)
    print(f"{name}: {figures['history'][-1]['test_accuracy']:.2f} % in {trained.seconds / 60:.1f} minutes", flush=True)
    swapped = swapped_accuracy(trained.network, *test) if generated else None
    cell = {"variant": variant, "seed": seed, "train_images": count, "swapped": swapped}
    return {**cell, **figures, "settings": run.settings}


def accuracy(network, images, labels, filters_of=None, batch_size=500):
    """Accuracy in percent; with `filters_of`, of a `models.repository_swap` that has the filters of those images."""
    right = 0
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        inputs = data.normalized(images[part], UNCHANGED)
        if filters_of is not None:
            inputs = {"images": inputs, "filters_of": data.normalized(filters_of[part], UNCHANGED)}
        outputs = network(inputs, training=False)
        classes = outputs["classes"] if isinstance(outputs, dict) else outputs
        right += int(np.sum(np.argmax(classes, axis=-1) == labels[part]))
    return 100 * right / len(images)


def swapped_accuracy(network, images, labels, seed=0):
    """Accuracy in percent of images with the filters of others."""
    return accuracy(inspection.repository_swap(network), images, labels, others(images, seed))


def others(images, seed=0):
    """`images` in another order, a random one in which none is where it was, if there are several."""
    order = np.random.default_rng(seed).permutation(len(images))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)  # along one circle
    return images[moved]
