# SPDX-License-Identifier: Apache-2.0
"""Trains and evaluates the runs of the filter repository sweeps: sum of both losses, accuracy, exchanged filters."""

import argparse
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import evaluation, options, run, sweep, training
from keras_dynfilter import inspection

# Means and deviations that leave pixels in [0, 1], the range of the reconstruction.
UNCHANGED = ((0.0,), (1.0,))


def add_options(parser: argparse.ArgumentParser, batch_size: int, epochs: int | None = None) -> None:
    """Adds the options of the training. Without `epochs`, recipes set the number of epochs, and `--full` is added."""
    add = parser.add_argument
    if epochs is None:
        text = "run the whole experiment, not the reduced one; `--full --help` shows its defaults"
        add("--full", dest="recipe", action="store_const", const="full", default="reduced", help=text)
    add("--epochs", type=options.positive_int, default=epochs, help="passes over the training images")
    add("--batch-size", type=options.positive_int, default=batch_size, help="images per step")
    add("--learning-rate", type=options.positive_float, default=1e-3, help="highest learning rate of Adam")
    add("--train-images", type=options.positive_int, help="train only on the first N images")
    add("--test-images", type=options.positive_int, help="test only on the first N images")


def load_parts(args: argparse.Namespace, load: Callable) -> tuple[tuple, tuple]:
    """Returns `(train, test)`, tuples of arrays cut to the numbers of images in the options; sets `args.source`.

    Args:
        args: The options.
        load: A loader of `examples.experiments.data`.
    """
    limits, parts = {"train": args.train_images, "test": args.test_images}, []
    for split, limit in limits.items():
        *arrays, args.source = load(split, args.data_dir, args.source)
        parts.append(tuple(array[:limit] for array in arrays))
    return tuple(parts)


class Evaluation(keras.callbacks.Callback):
    """Adds numbers to the metrics of every epoch.

    Args:
        evaluate: Function of the network that returns numbers by name.
    """

    def __init__(self, evaluate: Callable):
        super().__init__()
        self.evaluate = evaluate

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.evaluate(self.model.network))


def train_network(
    experiment: run.Experiment,
    name: str,
    build: Callable[[], keras.Model],
    generated: bool,
    loss: Any,
    batches: Callable,
    count: int,
    seed: int,
    evaluate: Callable,
    *,
    output: str = "classes",
) -> training.Trained:
    """Trains a network with generated filters, or its baseline, from a seed, or continues to train it.

    The optimizer is Adam, whose learning rate falls to zero along a cosine. As in the paper, the loss is the sum of the
    losses of the output and of the reconstruction. The baseline has no reconstruction.

    Args:
        experiment: The sweep.
        name: Name of the run.
        build: Function that returns a new network.
        generated: Whether the filters are generated, so that the network also reconstructs the images.
        loss: Loss of the output for Keras.
        batches: Function of the first step and the end step, which is not included, that returns a `tf.data.Dataset` of
            images, in [0, 1], and targets.
        count: Number of training images, which make up an epoch.
        seed: Seed of the weights.
        evaluate: Function of the network that returns numbers by name. It is called after every epoch.
        output: Name of the output of a network that also reconstructs.
    """
    args, epoch = experiment.args, math.ceil(count / experiment.args.batch_size)
    total = args.epochs * epoch
    print(f"\n{name}: {args.epochs} epochs of {epoch} steps of {args.batch_size} images", flush=True)

    def compile_model(trainer):
        rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, total)
        losses = {output: loss, "reconstruction": "binary_crossentropy"} if generated else loss
        trainer.compile(keras.optimizers.Adam(rate), losses)

    def steps(first, end):
        examples = batches(first, end)
        if not generated:
            return examples
        return examples.map(lambda images, targets: (images, {output: targets, "reconstruction": images}))

    return training.train(
        name,
        build,
        compile_model,
        steps,
        total=total,
        epoch=epoch,
        out=args.out / "runs",
        seed=seed,
        callbacks=[Evaluation(evaluate)],
        resume=True,
        settings=experiment.settings,
    )


def train_classifier(
    experiment: run.Experiment,
    variant: str,
    seed: int,
    build: Callable[[], keras.Model],
    generated: bool,
    train: tuple,
    test: tuple,
    *,
    augment: bool = False,
    watched: int = 0,
) -> dict[str, Any]:
    """Trains a run of a classifier, or continues to train it.

    Args:
        experiment: The sweep.
        variant: Name of the variant.
        seed: Seed of the weights and of the order of the images.
        build: As for `train_network`.
        generated: As for `train_network`.
        train: Images and labels.
        test: Images and labels, for the accuracy after every epoch.
        augment: Whether to shift and mirror training images at random.
        watched: Number of training images whose accuracy is computed after every epoch, too.

    Returns:
        The description of the run; `"swapped"` is the accuracy of images with the filters of other images.
    """
    args, name = experiment.args, sweep.run_name(variant, seed)
    sets = {"test_accuracy": test} | ({"train_accuracy": [array[:watched] for array in train]} if watched else {})

    def batches(first, end):
        augmentation = dict(pad=4 if augment else 0, flip=augment, statistics=UNCHANGED)
        return data.image_batches(*train, args.batch_size, end, first, seed, **augmentation)

    def evaluate(network):
        return {name: accuracy(network, *part) for name, part in sets.items()}

    loss, count = "sparse_categorical_crossentropy", len(train[0])
    trained = train_network(experiment, name, build, generated, loss, batches, count, seed, evaluate)
    figures = run.training_figures(trained)
    print(f"{name}: {figures['history'][-1]['test_accuracy']:.2f} % in {trained.seconds / 60:.1f} minutes", flush=True)
    swapped = swapped_accuracy(trained.network, *test) if generated else None
    description = {"variant": variant, "seed": seed, "train_images": count, "swapped": swapped}
    return {**description, **figures, "settings": experiment.settings}


def accuracy(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    filters_of: np.ndarray | None = None,
    batch_size: int = 500,
) -> float:
    """Returns the accuracy in percent.

    Args:
        network: The network; with `filters_of`, what `inspection.repository_swap` returned.
        images: Images, uint8.
        labels: Their classes.
        filters_of: Images whose filters are used; None: each image has its own filters.
        batch_size: Images per batch.
    """

    def scores():
        for first in range(0, len(images), batch_size):
            part = slice(first, first + batch_size)
            inputs = data.normalized(images[part], UNCHANGED)
            if filters_of is not None:
                inputs = {"images": inputs, "filters_of": data.normalized(filters_of[part], UNCHANGED)}
            outputs = network(inputs, training=False)
            yield outputs["classes"] if isinstance(outputs, dict) else outputs, labels[part]

    return evaluation.accuracies(scores())[0]


def swapped_accuracy(network: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """Returns the accuracy in percent on images that have the filters of other images."""
    return accuracy(inspection.repository_swap(network), images, labels, other_images(images, seed))


def other_images(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns `images` in a random order in which no image keeps its place, if there are several."""
    order = np.random.default_rng(seed).permutation(len(images))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)  # along a single cycle
    return images[moved]
