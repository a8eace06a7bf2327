# SPDX-License-Identifier: Apache-2.0
"""The ablations of Decoupled Dynamic Filter Networks (tables 3 and 4), on CIFAR-10 and as small as a CPU allows.

    python -m examples.experiments.ddf.ablation --processes 2
    python -m examples.experiments.ddf.ablation --only base ddf --seeds 0 1 2 3 4

Trains a small residual network with one or the other in place of its 3x3 convolutions: DDF, only one of its two kinds
of filters, other normalisations, other squeeze ratios, a depth-wise convolution, CondConv. All with the same optimizer,
schedule, augmentation, data order and number of steps, from several seeds. Writes the tables with mean and spread, says
which of the paper's orderings hold here, which do not and which the spread leaves open, and draws all runs.

A variant and a seed make a cell of the grid. Finished cells are kept, and one that was interrupted continues where it
was, so the same command goes on whenever it is given. Several processes share the grid if they have the same `--out`:
`--processes` starts them, a core each; they may also be started by hand, and at any time.

Where there is no CIFAR-10, it is downloaded, or else patterns are generated: docs/data.md.

Paper: https://arxiv.org/abs/2104.14107 (Zhou et al., CVPR 2021).
"""

import argparse
import functools

import keras
import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import common, harness, sgd, sweep, training
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


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    sweep.add_options(parser, ablation_variants.VARIANTS, "outputs/ddf_ablation")
    add = parser.add_argument
    add("--iterations", type=common.positive_int, default=5000, help="training steps of a cell")
    add("--batch-size", type=common.positive_int, default=64, help="images of a step")
    add("--learning-rate", type=common.positive_float, default=0.05, help="the highest; of SGD with momentum 0.9")
    add("--warmup", type=common.share, default=0.05, help="share of the steps in which the rate rises, before it falls")
    add("--weight-decay", type=common.positive_float, default=5e-4, help="of kernels, in the sense of PyTorch")
    add("--width", type=common.positive_int, default=16, help="channels of the first stage")
    add("--blocks", nargs="+", type=common.positive_int, default=[2, 2, 2], help="of each stage")
    add("--checkpoint-every", type=common.positive_int, default=250, help="steps between checkpoints; also an epoch")
    add("--test-images", type=common.positive_int, help="test on the first ones only")
    add("--source", choices=("auto", "cifar10", "generated"), default="auto", help="of the images")
    add("--data-dir", metavar="DIR", help="folder with cifar10/")
    return sweep.parse(parser, arguments, SMOKE)


def load(args):
    """`(train, test)`, each images `[count, 32, 32, 3]`, uint8, and labels `[count]`."""
    *train, args.source = data.load_cifar10("train", args.data_dir, args.source, return_source=True)
    test = data.load_cifar10("test", args.data_dir, args.source)
    return tuple(train), tuple(array[: args.test_images] for array in test)


def compile_model(model, args):
    optimizer = sgd.make(args.learning_rate, args.iterations, args.warmup * args.iterations, args.weight_decay)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)


def evaluate(network, images, labels, batch_size=250):
    """Accuracy in percent and mean cross-entropy in nats."""
    logits = [
        network(data.normalized(images[first : first + batch_size]), training=False)
        for first in range(0, len(images), batch_size)
    ]
    logits = tf.concat(logits, axis=0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    right = np.argmax(logits, axis=-1) == labels
    return {"top1": 100 * float(right.mean()), "loss": float(tf.reduce_mean(losses)), "images": len(labels)}


def train_cell(run, variant, seed, train, test):
    """Trains a variant from a seed, or what is left of it; returns what is to be known of it."""
    args, name = run.args, sweep.cell_name(variant, seed)
    print(f"\n{name}: {args.iterations} steps of {args.batch_size}", flush=True)

    def batches(first, end):
        return data.image_batches(*train, args.batch_size, end, first, seed)

    trained = training.train(
        name,
        functools.partial(ablation_variants.build, variant, width=args.width, blocks=args.blocks),
        functools.partial(compile_model, args=args),
        batches,
        total=args.iterations,
        epoch=min(args.checkpoint_every, args.iterations),
        out=args.out / "cells",
        seed=seed,
        resume=True,
        settings=run.settings,
    )
    network, figures = trained.network, evaluate(trained.network, *test)
    print(f"{name}: {figures['top1']:.2f} % in {trained.seconds / 60:.1f} minutes", flush=True)
    return {
        "variant": variant,
        "seed": seed,
        "flops": ablation_variants.flops(network),
        "test": figures,
        **harness.training_figures(trained),
        "settings": run.settings,
    }


def report(cells, tested):
    """What goes into the results, tables and figures, of finished cells."""
    summary = ablation_tables.summarize(cells)
    claims = ablation_tables.check_claims(summary)
    content = {"variants": summary, "claims": claims}
    return content, ablation_tables.markdown(summary, claims), {"accuracy.png": ablation_tables.figure(summary)}


def main(arguments=None):
    """Returns the exit status."""
    return sweep.run(parse(arguments), arguments, __file__, load, train_cell, report)


if __name__ == "__main__":
    sweep.run_script(main)
