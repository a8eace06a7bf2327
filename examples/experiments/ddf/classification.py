# SPDX-License-Identifier: Apache-2.0
r"""Trains DDF-ResNets to classify images (Decoupled Dynamic Filter Networks, section 4.1).

    python -m examples.experiments.ddf.classification --baseline
    python -m examples.experiments.ddf.classification --recipe paper --network ddf_resnet50 --images imagenet/train \
        --test-images imagenet/val --mixed-precision bfloat16 --strategy mirrored

Images come from a folder that has a folder of photographs for every class. Without `--images`, CIFAR-10 is used, or
generated patterns if it is not available: docs/guide/data.md. The baseline (`--baseline`) is the ResNet of the same
depth with 3x3 convolutions.

Recipes, all with SGD, momentum 0.9 and a cosine:

    paper       as the paper describes it: 120 epochs, batches of 256, rate 0.1, random resized crops, mirroring
    released    as the authors ran it: batches of 1024, rate 0.4, RandAugment, random erasing, label smoothing, float16
    reduced     for small images and few cores: 20 epochs, batches of 64, 16 channels in the first stage

The paper says that images are "resized and center-cropped to 224", and refers to the protocol of PSConv. Its recipe
does this with test images; training images are random crops, as is usual for ImageNet, without further augmentation.
The released command also asks for colour jitter, but its library ignores colour jitter together with RandAugment, and
the recipe does, too. The paper does not say which of the two setups its accuracies come from. Neither averages weights.

The paper does not describe its DDF-ResNet18 fully. The DDF-ResNet18 of this project has as many parameters as the
paper's with `--squeeze-ratio 0.5`, so the paper's accuracy is only shown for this ratio.

Paper: https://arxiv.org/abs/2104.14107 (Zhou et al., CVPR 2021).
"""

import argparse
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import distribution, evaluation, options, run, training
from examples.experiments.core.optimizer import sgd
from keras_dynfilter import inspection, models

RECIPES = {
    "paper": {"epochs": 120, "batch_size": 256, "learning_rate": 0.1, "last_learning_rate": 1e-5, "width": 64},
    "released": {
        "epochs": 120,
        "batch_size": 1024,
        "learning_rate": 0.4,
        "last_learning_rate": 1e-5,
        "warmup_epochs": 5,
        "nesterov": True,
        "rand_augment": 7.0,
        "erasing": 0.4,
        "label_smoothing": 0.1,
        "mixed_precision": "float16",
        "width": 64,
    },
    "reduced": {
        "network": "ddf_resnet18",
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.05,
        "warmup_epochs": 1,
        "nesterov": True,
        "weight_decay": 5e-4,
        "checkpoint_every": 250,
        "width": 16,
    },
}
SMOKE = {"iterations": 6, "batch_size": 4, "checkpoint_every": 3, "width": 8, "size": 32, "most_test_images": 16}
NETWORKS = ("ddf_resnet18", "ddf_resnet50", "ddf_resnet101", "ddf_resnet152")
# Top-1 and top-5 on ImageNet in percent, by squeeze ratio. Our DDF-ResNet18 has the paper's size only with 0.5.
PAPER = {
    ("ddf_resnet18", 0.5): "70.6",
    ("ddf_resnet50", 0.2): "79.1 / 94.5",
    ("ddf_resnet50", 0.3): "79.0 / 94.5",
    ("ddf_resnet50", 0.4): "79.2 / 94.5",
    ("ddf_resnet101", 0.2): "80.2",
}
PAPER_BASELINES = {"ddf_resnet18": "69.6", "ddf_resnet50": "77.2 / 93.5", "ddf_resnet101": "78.9"}
SMALL = 64  # the stem does not reduce images up to this size


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    add = parser.add_argument
    options.add_recipe(add, RECIPES)
    add("--network", choices=NETWORKS, default="ddf_resnet50", help="its baseline is a ResNet of the same depth")
    add(
        "--baseline",
        nargs="?",
        const="too",
        choices=("too", "only"),
        help="also train the baseline; `only` trains it alone",
    )
    add("--images", metavar="FOLDER", help="training images: a folder that has a folder of images for every class")
    add("--test-images", metavar="FOLDER", help="test images, in folders of the same names; by default --images")
    add("--source", choices=("auto", "cifar10", "generated"), default="auto", help="source of images without --images")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} cifar10/")
    add("--most-test-images", type=options.positive_int, help="test only on the first N images")
    add("--size", type=options.positive_int, help="rows and columns of the images; by default 224, 32 for CIFAR-10")
    add("--width", type=options.positive_int, help="channels of the first stage")
    add("--squeeze-ratio", type=options.positive_float, default=0.2, help="squeeze ratio of DDF")
    options.add_run_options(parser, "outputs/ddf_classification")
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=options.positive_float, help="passes over the training images")
    add("--iterations", type=options.positive_int, help="training steps, instead of --epochs")
    add("--batch-size", type=options.positive_int, help="images per step, over all devices")
    add("--learning-rate", type=options.positive_float, help="highest learning rate")
    add("--last-learning-rate", type=float, default=0.0, help="learning rate at the end of the cosine")
    add("--warmup-epochs", type=float, default=0.0, help="epochs in which the rate rises from zero")
    add("--weight-decay", type=options.positive_float, default=1e-4, help="weight decay of kernels, as in PyTorch")
    add("--nesterov", action=argparse.BooleanOptionalAction, default=False, help="use Nesterov's momentum")
    add("--label-smoothing", type=options.fraction, default=0.0, help="fraction of a label that all classes share")
    add("--rand-augment", type=float, metavar="MAGNITUDE", help="of RandAugment, 0 to 10; for photographs")
    add("--color-jitter", type=options.fraction, default=0.0, help="strength; for photographs, without --rand-augment")
    add("--erasing", type=options.fraction, default=0.0, help="probability of random erasing; for photographs")
    add(
        "--checkpoint-every",
        type=options.positive_int,
        default=1000,
        help="steps per epoch, which ends with a checkpoint",
    )
    add(
        "--time-limit",
        type=options.positive_float,
        metavar="MINUTES",
        help="stop training after this time; --resume continues",
    )
    add(
        "--strategy",
        choices=distribution.STRATEGIES,
        default="one",
        help="distribution strategy; multi-worker needs TF_CONFIG",
    )
    add("--mixed-precision", choices=options.PRECISIONS, default="none", help="compute dtype; variables are float32")
    add("--jit-compile", action=argparse.BooleanOptionalAction, default=False, help="use XLA, with --no-deterministic")
    options.add_deterministic(add)
    args = options.parse(parser, arguments, SMOKE, RECIPES)
    if args.recipe != "reduced" and not args.images:
        parser.error(f"argument --recipe: expected --images with {args.recipe}, which is for photographs")
    if args.test_images and not args.images:
        parser.error("argument --test-images: expected --images, too")
    if not args.images and args.size not in (None, 32):
        parser.error(f"argument --size: expected 32 without --images, received {args.size}")
    args.size = args.size or (224 if args.images else 32)
    return args


class Photographs:
    """Reads photographs from folders of classes."""

    def __init__(self, args):
        self.args, self.tested = args, args.test_images or args.images
        self.files, self.labels, self.classes = data.list_images(args.images)
        self.test_files, self.test_labels, _ = data.list_images(self.tested, self.classes)
        self.count = len(self.files)
        if not args.test_images:
            print(f"No --test-images: accuracies are measured on the training images, {args.images}.")

    def fingerprint(self):
        names = np.frombuffer("\n".join(self.files).encode(), np.uint8)
        return run.fingerprint({"files": names, "labels": self.labels})

    def batches(self, first, end):
        args = self.args
        jitter = 0.0 if args.rand_augment is not None else args.color_jitter
        return data.photograph_batches(
            self.files,
            self.labels,
            args.batch_size,
            end,
            first,
            args.seed,
            args.size,
            color_jitter=jitter,
            rand_augment_magnitude=args.rand_augment,
            erasing=args.erasing,
        )

    def tests(self):
        most = self.args.most_test_images
        return data.photograph_test_batches(
            self.test_files[:most], self.test_labels[:most], self.args.batch_size, self.args.size
        )


class SmallImages:
    """Holds CIFAR-10, or the generated patterns that replace it."""

    def __init__(self, args):
        *train, source = data.load_cifar10("train", args.data_dir, args.source)
        self.args, self.tested = args, source
        self.train, self.test = tuple(train), data.load_cifar10("test", args.data_dir, source)[:2]
        self.count, self.classes = len(self.train[0]), range(10)

    def fingerprint(self):
        return run.fingerprint(dict(zip(("images", "labels"), self.train)))

    def batches(self, first, end):
        return data.image_batches(*self.train, self.args.batch_size, end, first, self.args.seed)

    def tests(self):
        images, labels = (array[: self.args.most_test_images] for array in self.test)
        return tf.data.Dataset.from_tensor_slices((data.normalized(images), labels)).batch(self.args.batch_size)


def load(args: argparse.Namespace) -> Photographs | SmallImages:
    """Loads the images that the options ask for."""
    return Photographs(args) if args.images else SmallImages(args)


def builders(args: argparse.Namespace, classes: int):
    """Returns functions that return new networks with logits, by name."""
    shared = dict(
        input_shape=(args.size, args.size, 3),
        classes=classes,
        width=args.width,
        stem="cifar" if args.size <= SMALL else "imagenet",
        classifier_activation=None,
    )
    network = getattr(models, args.network)
    baseline = getattr(models, f"{args.network}_baseline")
    return {
        "ddf": functools.partial(network, squeeze_ratio=args.squeeze_ratio, **shared),
        "baseline": functools.partial(baseline, **shared),
    }


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
class SmoothedCrossentropy(keras.losses.Loss):
    """Computes the cross-entropy of logits and integer labels, in nats, with label smoothing."""

    def __init__(self, smoothing=0.0, name="smoothed_crossentropy"):
        super().__init__(name=name)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        logits = tf.cast(y_pred, tf.float32)
        classes = logits.shape[-1]
        labels = tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), classes)
        labels = labels * (1 - self.smoothing) + self.smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)

    def get_config(self):
        return {"smoothing": self.smoothing, "name": self.name}


def compile_model(model: keras.Model, args: argparse.Namespace, steps_per_epoch: float) -> None:
    """Compiles a model with SGD."""
    optimizer = sgd(
        args.learning_rate,
        args.iterations,
        args.warmup_epochs * steps_per_epoch,
        args.weight_decay,
        args.last_learning_rate,
        args.nesterov,
    )
    model.compile(optimizer, SmoothedCrossentropy(args.label_smoothing), jit_compile=args.jit_compile)


def train(experiment: run.Experiment, images, steps_per_epoch: float) -> dict[str, training.Trained]:
    """Trains the networks; returns them by name."""
    args = experiment.args
    return training.train_networks(
        experiment,
        builders(args, len(images.classes)),
        data=images.batches,
        compile_model=functools.partial(compile_model, args=args, steps_per_epoch=steps_per_epoch),
    )


def evaluate(trained: dict[str, training.Trained], images) -> dict[str, Any]:
    """Returns accuracies, parameters and FLOPs of the networks, by name."""
    return {
        name: {
            **accuracies(done.network, images.tests()),
            "parameters": inspection.count_parameters(done.network),
            "flops": inspection.count_flops(done.network),
        }
        for name, done in trained.items()
    }


def accuracies(network: keras.Model, batches) -> dict[str, Any]:
    """Returns top-1 and top-5 accuracy in percent, and the number of images."""
    predict = tf.function(functools.partial(network, training=False))
    count = 0

    def scores():
        nonlocal count
        for images, labels in batches:
            count += len(labels)
            yield predict(images), labels

    top1, top5 = evaluation.accuracies(scores(), top=(1, 5))
    return {"top1": top1, "top5": top5, "images": count}


def paper_figures(args: argparse.Namespace) -> dict[str, str]:
    """Returns the accuracies that the paper reports for the networks of the options, by name, if it has any."""
    if args.recipe == "reduced" or args.width != 64:
        return {}
    figures = {"ddf": PAPER.get((args.network, args.squeeze_ratio)), "baseline": PAPER_BASELINES.get(args.network)}
    return {name: figure for name, figure in figures.items() if figure}


def print_accuracies(args: argparse.Namespace, figures: dict[str, Any], paper: dict[str, str], tested: str) -> None:
    """Prints accuracies by network."""
    print(f"\nAccuracy of {args.network} on {tested}:")
    for name, figure in figures.items():
        size = f"{figure['parameters']:,} parameters, {figure['flops'] / 1e6:,.1f}M FLOPs"
        note = f"   paper, on ImageNet: {paper[name]}" if name in paper else ""
        print(f"  {name:<10} top-1 {figure['top1']:6.2f} %   top-5 {figure['top5']:6.2f} %   {size}{note}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, trains and evaluates. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        images = load(args)
    steps_per_epoch = images.count / args.batch_size
    args.iterations = args.iterations or max(1, math.ceil(args.epochs * steps_per_epoch))
    experiment = run.begin(args, free=("test_images", "most_test_images"), data=images.fingerprint())
    trained = train(experiment, images, steps_per_epoch)
    if not run.finished(experiment, trained):
        return 0
    figures = evaluate(trained, images)
    paper = paper_figures(args)
    print_accuracies(args, figures, paper, images.tested)
    run.conclude(experiment, trained, {"tested": images.tested, "test": figures, "paper": paper}, [])
    return 0


if __name__ == "__main__":
    run.run_script(main)
