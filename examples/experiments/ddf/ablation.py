# SPDX-License-Identifier: Apache-2.0
"""Repeats the ablations of Decoupled Dynamic Filter Networks (tables 3 and 4) on CIFAR-10, at a scale for CPUs.

    python -m examples.experiments.ddf.ablation --processes 2
    python -m examples.experiments.ddf.ablation --only base ddf --seeds 0 1 2 3 4

Trains a small residual network whose 3x3 convolutions are replaced: by DDF, by one of its two kinds of filters, by DDF
with other normalisations or squeeze ratios, by a depth-wise convolution, or by CondConv. Optimizer, schedule,
augmentation, order of the data and number of steps are the same for all variants. Each variant is trained from several
seeds. Writes tables with mean and deviation, judges the orderings that the paper reports, and draws all runs.

A run is a variant with a seed. Finished runs are kept and interrupted runs continue, so the same command continues the
sweep at any time. Processes with the same `--out` share the sweep: `--processes` starts several, each with a part of
the cores, and more can be started by hand.

If CIFAR-10 is not found, it is downloaded, or replaced by generated patterns: docs/guide/data.md.

Paper: https://arxiv.org/abs/2104.14107 (Zhou et al., CVPR 2021).
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import evaluation, options, run, sweep, training
from examples.experiments.core.optimizer import sgd
from examples.experiments.ddf import ablation_tables, ablation_variants

SMOKE = {
    "only": ["base", "ddf"],
    "seeds": [0],
    "iterations": 6,
    "batch_size": 8,
    "checkpoint_every": 3,
    "width": 4,
    "blocks": [1, 1],
    "test_images": 64,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    sweep.add_options(parser, ablation_variants.VARIANTS, "outputs/ddf_ablation")
    add = parser.add_argument
    add("--iterations", type=options.positive_int, default=5000, help="training steps per run")
    add("--batch-size", type=options.positive_int, default=64, help="images per step")
    add("--learning-rate", type=options.positive_float, default=0.05, help="highest rate of SGD with momentum 0.9")
    add("--warmup", type=options.fraction, default=0.05, help="fraction of the steps in which the rate rises")
    add("--weight-decay", type=options.positive_float, default=5e-4, help="weight decay of kernels, as in PyTorch")
    add("--width", type=options.positive_int, default=16, help="channels of the first stage")
    add("--blocks", nargs="+", type=options.positive_int, default=[2, 2, 2], help="blocks of each stage")
    add(
        "--checkpoint-every",
        type=options.positive_int,
        default=250,
        help="steps per epoch, which ends with a checkpoint",
    )
    add("--test-images", type=options.positive_int, help="test only on the first N images")
    add("--source", choices=("auto", "cifar10", "generated"), default="auto", help="source of the images")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} cifar10/")
    return sweep.parse(parser, arguments, SMOKE)


def load(args: argparse.Namespace) -> tuple[tuple, tuple]:
    """Returns `(train, test)`, each images `[count, 32, 32, 3]`, uint8, and labels `[count]`."""
    *train, args.source = data.load_cifar10("train", args.data_dir, args.source)
    *test, _ = data.load_cifar10("test", args.data_dir, args.source)
    return tuple(train), tuple(array[: args.test_images] for array in test)


def compile_model(model: keras.Model, args: argparse.Namespace) -> None:
    """Compiles a model with SGD and the cross-entropy of logits."""
    optimizer = sgd(args.learning_rate, args.iterations, args.warmup * args.iterations, args.weight_decay)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)


def evaluate(network: keras.Model, images: np.ndarray, labels: np.ndarray, batch_size: int = 250) -> dict[str, Any]:
    """Returns the accuracy in percent and the mean cross-entropy in nats."""
    logits = [
        network(data.normalized(images[first : first + batch_size]), training=False)
        for first in range(0, len(images), batch_size)
    ]
    logits = tf.concat(logits, axis=0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    (top1,) = evaluation.accuracies([(logits, labels)])
    return {"top1": top1, "loss": float(tf.reduce_mean(losses)), "images": len(labels)}


def train_run(experiment: run.Experiment, variant: str, seed: int, train: tuple, test: tuple) -> dict[str, Any]:
    """Trains a variant from a seed, or continues to train it. Returns the description of the run."""
    args, name = experiment.args, sweep.run_name(variant, seed)
    print(f"\n{name}: {args.iterations} steps of {args.batch_size} images", flush=True)

    def batches(first, end):
        return data.image_batches(*train, args.batch_size, end, first, seed)

    trained = training.train(
        name,
        functools.partial(ablation_variants.build, variant, width=args.width, blocks=args.blocks),
        functools.partial(compile_model, args=args),
        batches,
        total=args.iterations,
        epoch=min(args.checkpoint_every, args.iterations),
        out=args.out / "runs",
        seed=seed,
        resume=True,
        settings=experiment.settings,
    )
    network, figures = trained.network, evaluate(trained.network, *test)
    print(f"{name}: {figures['top1']:.2f} % in {trained.seconds / 60:.1f} minutes", flush=True)
    return {
        "variant": variant,
        "seed": seed,
        "flops": ablation_variants.flops(network),
        "test": figures,
        **run.training_figures(trained),
        "settings": experiment.settings,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all runs and reports on them. Returns the exit status."""
    report = functools.partial(sweep.report_accuracies, ablation_tables)
    return sweep.main(parse(arguments), arguments, __spec__.name, load, train_run, report)


if __name__ == "__main__":
    sweep.run_script(main)
