# SPDX-License-Identifier: Apache-2.0
"""Predicts the next frames of two moving digits (Dynamic Filter Networks, section 4.2).

    python -m examples.experiments.dfn.moving_mnist --baseline

From the input frames, the network generates a filter for every pixel, and filters the last frame with the filters. The
result is the predicted next frame, and an input for the frame after it. The baseline generates the pixels directly and
has as many parameters. Training sequences are generated on the fly, from MNIST if it is available.

Recipes:

    reduced   for two CPU cores, about an hour: a quarter of the width, five input frames, three predicted frames, and
              a curriculum that begins with one predicted frame
    paper     the setting of the paper, for a GPU: 20,000 iterations of 16 sequences, ten input frames, ten
              predicted frames
    better    the same network and number of iterations, with a curriculum and a cosine learning rate
    blended   a network of this project, with no more parameters, that also paints pixels; trained as `better`

An interrupted run continues with `--resume` and ends with the same bits as an uninterrupted run.

Errors are reported as in the paper: binary cross-entropy in nats per frame, which is the mean per pixel times 64 x 64,
for any size. Targets are grey, so even a perfect prediction has an error above 0, which is also printed. With
`--resume --test-frames 10:20`, a trained network is tested on other numbers of frames than it was trained on.

Sources of the data, and how to use other data: docs/guide/data.md.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from examples.experiments import data, figures
from examples.experiments.core import evaluation, files, losses, options, run, training
from examples.experiments.dfn import digit_flow
from examples.experiments.dfn import moving_mnist_sequences as sequences
from keras_dynfilter import inspection, models

BETTER = {
    "batch_size": 16,
    "iterations": 20_000,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "curriculum": 0.5,
    "clip_norm": 1.0,
    "baseline_bias": 0.1,
}
RECIPES = {
    "paper": {
        "batch_size": 16,
        "iterations": 20_000,
        "learning_rate": 1e-3,
        "baseline_learning_rate": 1e-4,
        "schedule": "paper",
        "curriculum": 0.0,
    },
    "better": BETTER,
    "blended": {**BETTER, "network": "blended"},
    "reduced": {
        "width": 0.25,
        "input_frames": 5,
        "output_frames": 3,
        "batch_size": 8,
        "iterations": 20_000,
        "learning_rate": 2e-3,
        "baseline_learning_rate": 2e-4,
        "schedule": "cosine",
        "curriculum": 0.8,
        "stages": [(4, 1), (5, 2)],
        "clip_norm": 1.0,
        "baseline_bias": 0.1,
    },
}
NETWORKS = {"paper": models.dfn_moving_mnist, "blended": models.dfn_moving_mnist_blended}
SMOKE = {
    "size": 16,
    "width": 0.125,
    "batch_size": 4,
    "iterations": 12,
    "checkpoint_every": 4,
    "input_frames": 3,
    "output_frames": 3,
    "curriculum": 0.7,
    "stages": [(2, 1)],
    "test_sequences": 20,
}


def frame_counts(text: str) -> tuple[int, int]:
    """Argument type: numbers of frames as `INPUT:OUTPUT`."""
    try:
        inputs, outputs = (int(part) for part in text.split(":"))
    except ValueError:
        inputs = outputs = 0
    if min(inputs, outputs) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of frames as INPUT:OUTPUT, received {text!r}")
    return inputs, outputs


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_training_parser(__doc__, "outputs/moving_mnist", RECIPES)
    add = parser.add_argument
    add("--network", choices=NETWORKS, default="paper", help="network of the paper, or network that also paints pixels")
    add(
        "--size",
        type=int,
        choices=(16, 32, 64),
        default=sequences.FULL,
        help="rows and columns of a frame; digits are scaled with them",
    )
    add("--input-frames", type=options.positive_int, default=10, help="frames that the network is given")
    add("--output-frames", type=options.positive_int, default=10, help="frames to predict")
    add("--curriculum", type=options.fraction, help="fraction of the training with fewer frames; 0: no curriculum")
    add(
        "--stages",
        nargs="+",
        type=frame_counts,
        default=[(3, 1), (4, 2), (6, 4), (10, 7)],
        metavar="INPUT:OUTPUT",
        help="input and predicted frames in the stages of the curriculum, which are equally long; stages that predict "
        "--output-frames or more are left out",
    )
    add("--digits", choices=("auto", "mnist", "rendered"), default="auto", help="MNIST, or digits drawn with fonts")
    add(
        "--data-dir",
        metavar="DIR",
        help=f"{options.DATA_DIR} mnist/mnist.npz, and {sequences.PUBLISHED} or {sequences.FILE}",
    )
    add(
        "--test-sequences",
        type=options.positive_int,
        metavar="N",
        help="number of generated sequences to test on; by default, the sequences of the data folder are used, or "
        f"{sequences.COUNT} generated ones if there are none",
    )
    add(
        "--test-frames",
        type=frame_counts,
        metavar="INPUT:OUTPUT",
        help="input and predicted frames in all tests; by default as in the training",
    )
    add(
        "--baseline-bias",
        type=options.finite,
        default=0.0,
        help="initial bias of the last layer of the baseline",
    )
    args = options.parse(parser, arguments, SMOKE, RECIPES)
    outputs = [count for _, count in args.stages]
    if sorted(set(outputs)) != outputs:
        parser.error(f"argument --stages: expected the numbers of predicted frames to grow, received {outputs}")
    args.stages = [frames for frames in args.stages if frames[1] < args.output_frames]
    args.test_frames = args.test_frames or (args.input_frames, args.output_frames)
    return args


# Data


class Loaded(NamedTuple):
    """Holds the digits and the test sequences.

    Attributes:
        digits: Digits to train on, `[count, 28, 28]`, uint8.
        test_digits: Digits to test on, as large as in the frames, float32.
        source: Source of the digits, `"mnist"` or `"rendered"`.
        tests: Sequences to test on, by name.
    """

    digits: np.ndarray
    test_digits: np.ndarray
    source: str
    tests: dict[str, Any]


def load(args: argparse.Namespace) -> Loaded:
    """Loads digits to train on, and sequences to test on."""
    images, _, source = data.load_mnist("train", args.data_dir, args.digits)
    test_digits = sequences.shrink(data.load_mnist("test", args.data_dir, source).images[..., 0], args.size)
    return Loaded(images[..., 0], test_digits, source, sequences.test_sets(args, test_digits))


# Training


def train(experiment: run.Experiment, loaded: Loaded) -> dict[str, training.Trained]:
    """Trains the networks; returns them by name."""
    args, digits = experiment.args, sequences.shrink(loaded.digits, experiment.args.size)
    stages, inputs = curriculum(args, min(args.checkpoint_every, args.iterations))

    def batches(first, end, steps):
        sizes = dict(frames=inputs[steps] + steps, size=args.size)
        videos = data.moving_digits(digits, args.batch_size, end, first, args.seed, **sizes)
        return data.split_frames(videos, inputs[steps])

    sizes = dict(image_shape=(args.size, args.size, 1), kernel_size=kernel_size(args.size), width=args.width)
    sizes.update(input_frames=args.input_frames, output_frames=args.output_frames)
    builders = {
        "dfn": functools.partial(NETWORKS[args.network], **sizes),
        "baseline": functools.partial(build_baseline, args.baseline_bias, sizes),
    }
    return training.train_networks(experiment, builders, losses.clipped_bce, batches, stages=stages)


def curriculum(args: argparse.Namespace, epoch: int):
    """Returns the stages of the training, and the numbers of input frames by number of predicted frames.

    Args:
        args: The options.
        epoch: Number of steps of an epoch; every stage starts with an epoch.
    """
    counts = [*(args.stages if args.curriculum else []), (args.input_frames, args.output_frames)]
    last = min(args.curriculum * args.iterations, (args.iterations - 1) // epoch * epoch)
    part = last / max(len(counts) - 1, 1)
    firsts = {round(part * i / epoch) * epoch: outputs for i, (_, outputs) in enumerate(counts)}
    inputs = {outputs: inputs for inputs, outputs in counts}
    return [(first, {"steps": outputs}) for first, outputs in firsts.items()], inputs


def kernel_size(size: int) -> int:
    """Returns the smallest odd window that contains every motion of a digit from one frame to the next."""
    return 2 * math.ceil(3.6 * size / sequences.FULL) + 1


def build_baseline(bias: float, sizes) -> keras.Model:
    """Builds the baseline with an initial bias of its last layer.

    Predictions below zero are clipped and have no gradient. With a learning rate above 1e-4, the rate of the paper, all
    predicted pixels of the baseline are soon below zero, unless it starts with a positive bias.
    """
    network = models.dfn_moving_mnist_baseline(**sizes)
    network.output_layer.bias.assign([bias])
    return network


# Evaluation


def evaluate(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> dict[str, Any]:
    """Computes the errors of the networks, for the results."""
    predictors = {name: predictor(network, args.test_frames[1]) for name, network in networks.items()}
    content = {
        "unit": "nats per frame: mean per pixel x 64 x 64",
        "digits": loaded.source,
        "test_frames": args.test_frames,
        "test": {name: errors(predictors, batches) for name, batches in loaded.tests.items()},
        "out_of_domain": {
            str(count): errors(predictors, batches) for count, batches in out_of_domain(args, loaded).items()
        },
    }
    if "dfn" in networks and args.network == "paper":  # filters once, so the filters contain all of the motion
        size, inputs = kernel_size(args.size), args.test_frames[0]
        pairs = digit_flow.moving_pairs(loaded.test_digits, sequences.COUNT, 1 + inputs, args.size, sequences.TEST_SEED)
        content["end_point_error"] = digit_flow.end_point_errors(networks["dfn"], pairs, size, inputs)
    return content


def out_of_domain(args: argparse.Namespace, loaded: Loaded):
    """Returns test sequences of one and of three digits, by number of digits; the training has two digits."""
    count = min(args.test_sequences or sequences.COUNT, sequences.COUNT)
    return {digits: sequences.GeneratedSequences(args, loaded.test_digits, count, digits) for digits in (1, 3)}


def predictor(network: keras.Model, steps: int):
    """Returns a function of input frames that returns `steps` predicted frames, as NumPy arrays."""
    predict = tf.function(functools.partial(network, steps=steps))
    return lambda inputs: predict(tf.constant(inputs)).numpy()


def errors(predictors, batches):
    """Computes errors in nats per frame, by name: of `predictors`, and of predictions without learning."""
    count = image = 0
    for _, targets in batches:
        count, image = count + len(targets), image + targets.mean(axis=1).sum(axis=0)
    predictors = dict(predictors)
    predictors["mean image"] = lambda inputs: np.broadcast_to(image / count, (len(inputs), 1, *image.shape))
    predictors["last frame"] = lambda inputs: inputs[:, -1:]
    figures = evaluation.errors_per_image(losses.clipped_bce, predictors, batches)
    perfect = ((targets, targets) for _, targets in batches)
    return {**figures, **evaluation.errors_per_image(losses.clipped_bce, {"perfect": lambda targets: targets}, perfect)}


def print_errors(args: argparse.Namespace, content: dict[str, Any], networks: dict[str, keras.Model]) -> None:
    """Prints errors by network."""
    inputs, predicted = args.test_frames
    print(f"\nBinary cross-entropy of {predicted} predicted frames after {inputs} frames, {content['unit']}:")
    groups = {f"test, {name}": errors for name, errors in content["test"].items()}
    groups.update({f"digits: {count}": errors for count, errors in content["out_of_domain"].items()})
    for group, by_name in groups.items():
        print(f"  {group} ({next(iter(by_name.values()))['images'] // predicted} sequences)")
        for name, error in by_name.items():
            note = f"   {networks[name].count_params():,} parameters" if name in networks else ""
            print(f"    {name:<12} {error['mean']:8.1f}{note}")
    if "end_point_error" in content:
        print(
            "Motion from the last input frame to the next one, where digits do not overlap, end-point error in pixels:"
        )
        for name, error in content["end_point_error"].items():
            print(f"    {name:<18} {error:8.2f}")


# Figures


def draw(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> list[str]:
    """Draws predictions, flow, filters and a film. Returns the names of the files."""
    examples = predictions(networks, next(iter(loaded.tests.values())), 3)
    groups = {
        f"{count} digit{'s' if count > 1 else ''}": predictions(networks, batches, 2)
        for count, batches in out_of_domain(args, loaded).items()
    }
    drawn = {
        "predictions.png": figures.moving_mnist_figure(**examples),
        "out_of_domain.png": figures.out_of_domain_figure(groups),
    }
    if "dfn" in networks:
        inputs, size = examples["inputs"], kernel_size(args.size)
        filters = inspection.generated_filters(networks["dfn"], inputs, steps=1)[..., : size**2]  # of the first layer
        flow = inspection.filters_to_flow(filters, size)
        next_frame = dict(targets=examples["targets"][:, :1], predictions=examples["predictions"][:, :1])
        drawn["flow.png"] = figures.highway_figure(inputs[:, -2:], **next_frame, flow=flow)
        drawn["filters.png"] = figures.filters_figure(inputs[0, -1], filters[0, 0], size)
    names = run.save_figures(args, drawn)
    sides = [examples[name] for name in ("targets", "predictions", "baseline") if name in examples]
    films = [np.concatenate([examples["inputs"], frames], axis=1) for frames in sides]
    film = np.concatenate([np.concatenate(films, axis=3)[i] for i in range(len(sides[0]))], axis=1)
    with files.written_whole(args.out / "predictions.gif", ".gif") as part:
        figures.save_gif(part, film, scale=max(1, 128 // args.size))
    return [*names, "predictions.gif"]


def predictions(networks: dict[str, keras.Model], batches, count: int):
    """Returns the first `count` sequences of `batches` and their predictions, as arguments of the figures."""
    inputs, targets = next(iter(batches))
    inputs, targets = inputs[:count], targets[:count]
    by_network = {
        name: network(inputs, steps=targets.shape[1]).numpy().clip(0, 1) for name, network in networks.items()
    }
    if len(by_network) == 1:
        return dict(inputs=inputs, targets=targets, predictions=next(iter(by_network.values())))
    return dict(inputs=inputs, targets=targets, predictions=by_network["dfn"], baseline=by_network["baseline"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, trains, evaluates and draws. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        loaded = load(args)
    free = ["digits", "test_sequences", "test_frames"]
    experiment = run.begin(args, free=free, data=run.fingerprint({"digits": loaded.digits}))
    trained = train(experiment, loaded)
    if not run.finished(experiment, trained):
        return 0
    networks = {name: done.network for name, done in trained.items()}
    content = evaluate(args, networks, loaded)
    names = draw(args, networks, loaded)
    print_errors(args, content, networks)
    run.conclude(experiment, trained, content, names)
    return 0


if __name__ == "__main__":
    run.run_script(main)
