# SPDX-License-Identifier: Apache-2.0
"""Predicts the next frames of two moving digits (Dynamic Filter Networks, section 4.2).

    python -m examples.experiments.dfn.moving_mnist --baseline

From the frames it has seen, the network generates a filter for every pixel and filters the last frame with them. The
result is the next frame, and the input for the one after it. The baseline generates the pixels directly and has as many
parameters. Training sequences are drawn on the fly, from MNIST if it is available.

Recipes:

    reduced   for two CPU cores, about an hour of each: a quarter of the width, five frames in and three out, and a
              curriculum that begins with one frame out
    paper     the setting of the paper, for a GPU: 20,000 iterations of 16 sequences, ten frames in and ten out
    better    the same network and number of iterations, with a curriculum and a cosine learning rate
    blended   a network of this project, with no more parameters, that also paints pixels; trained as `better`

An interrupted run continues with `--resume` and ends with the same bits.

Errors are reported as in the paper: binary cross-entropy in nats per frame, which is the mean per pixel times 64 x 64,
whatever the size. Targets are grey, so a perfect prediction has an error above 0, which is printed, too. With
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
from examples.experiments.core import evaluation, losses, options, run, training
from examples.experiments.dfn import digit_flow
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
FULL = 64  # rows and columns of the paper's frames, in which digits of 28 pixels move 3.6 pixels per frame
PUBLISHED = "moving_mnist/mnist_test_seq.npy"
FILE = "moving_mnist/generated_test_300.npz"
TEST_SEED = 2**31  # above the largest seed of a training
TEST_BATCH = 50
TEST_SEQUENCES = 300


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
    parser = options.new_training_parser(__doc__, "outputs/moving_mnist", RECIPES)
    add = parser.add_argument
    add("--network", choices=NETWORKS, default="paper", help="the paper's, or the one that also paints and blends")
    add(
        "--size",
        type=int,
        choices=(16, 32, 64),
        default=FULL,
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
        help="frames given and predicted in the stages of the curriculum, which are equally long; stages that do not "
        "predict fewer than --output-frames are left out",
    )
    add("--digits", choices=("auto", "mnist", "rendered"), default="auto", help="MNIST, or digits drawn with fonts")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} mnist/mnist.npz, and {PUBLISHED} or {FILE}")
    add(
        "--test-sequences",
        type=options.positive_int,
        metavar="N",
        help=f"test on so many generated ones; by default on those of the data folder, or else on {TEST_SEQUENCES}",
    )
    add(
        "--test-frames",
        type=frame_counts,
        metavar="INPUT:OUTPUT",
        help="frames given and predicted in all tests; by default as in the training",
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
    """What `load` returns.

    Attributes:
        digits: Digits to train on, `[count, 28, 28]`, uint8.
        test_digits: Digits to test on, as large as in the frames, float32.
        source: What the digits are: `"mnist"` or `"rendered"`.
        tests: Sequences to test on, by name.
    """

    digits: np.ndarray
    test_digits: np.ndarray
    source: str
    tests: dict[str, Any]


def load(args: argparse.Namespace) -> Loaded:
    """Loads digits to train on, and sequences to test on."""
    images, _, source = data.load_mnist("train", args.data_dir, args.digits)
    test_digits = shrink(data.load_mnist("test", args.data_dir, source).images[..., 0], args.size)
    return Loaded(images[..., 0], test_digits, source, test_sets(args, test_digits))


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Averages areas of `[..., height, width]`, uint8, so that 64 x 64 become `size` x `size`; float32 in [0, 1]."""
    factor = FULL // size
    *axes, height, width = images.shape
    areas = images.reshape(*axes, height // factor, factor, width // factor, factor)
    return areas.mean(axis=(-3, -1), dtype=np.float32) / np.float32(255)


class GeneratedSequences:
    """Generated sequences, `count` of them in batches `(inputs, targets)`, the same ones every time."""

    def __init__(self, args, digits, count, digits_per_sequence=2):
        self.count, self.inputs = count, args.test_frames[0]
        self.batches = data.moving_digits(
            digits,
            TEST_BATCH,
            -(-count // TEST_BATCH),
            seed=TEST_SEED,
            frames=sum(args.test_frames),
            digits_per_sequence=digits_per_sequence,
            size=args.size,
        )

    def __iter__(self):
        for first, frames in zip(range(0, self.count, TEST_BATCH), self.batches.as_numpy_iterator()):
            frames = frames[: self.count - first]
            yield frames[:, : self.inputs], frames[:, self.inputs :]


class TooShort(ValueError):
    """Stored sequences have fewer frames than the options ask for."""


class StoredSequences:
    """Sequences of a file, shrunk to the size of the options, in batches `(inputs, targets)`.

    Args:
        args: The options.
        path: A `.npy` of `[frames, sequences, 64, 64]`, as the test set is published, or a `.npz` with `sequences`,
            `[sequences, frames, 64, 64]`; uint8.

    Raises:
        TooShort: The sequences have too few frames.
        ValueError: The file holds no such sequences.
    """

    def __init__(self, args, path):
        self.size, self.inputs, self.frames = args.size, args.test_frames[0], sum(args.test_frames)
        expected = f"Expected {path} to hold sequences of {self.frames} frames of 64 x 64 or more, uint8"
        try:
            if path.suffix == ".npy":
                self.sequences = np.load(path, mmap_mode="r").swapaxes(0, 1)
            else:
                with np.load(path) as content:
                    self.sequences = content["sequences"]
            shape, dtype = self.sequences.shape, self.sequences.dtype
        except Exception as error:  # NumPy raises many kinds for damaged files
            raise ValueError(f"{expected}. Received: {error}") from error
        if len(shape) != 4 or not shape[0] or shape[2:] != (FULL, FULL) or dtype != np.uint8:
            raise ValueError(f"{expected}. Received: shape={shape}, dtype={dtype}")
        if shape[1] < self.frames:
            raise TooShort(f"{expected}. Received: {shape[1]} frames")

    def __iter__(self):
        for first in range(0, len(self.sequences), TEST_BATCH):
            frames = shrink(self.sequences[first : first + TEST_BATCH, : self.frames], self.size)[..., None]
            yield frames[:, : self.inputs], frames[:, self.inputs :]


def test_sets(args: argparse.Namespace, digits: np.ndarray):
    """Returns sequences to test on, by name; the first ones are drawn in the figures.

    Generated sequences are the first ones if the stored ones must be shrunk, since digits of shrunk frames lie between
    pixels, and those of the training never do. They replace stored sequences of too few frames.
    """
    path = data.find_data(PUBLISHED, args.data_dir) or data.find_data(FILE, args.data_dir)
    stored = None
    if path is not None and not args.test_sequences:
        try:
            stored = StoredSequences(args, path)
        except TooShort as error:
            print(f"{error}. Tests on generated sequences instead.")
    sets = {}
    if stored is None or args.size != FULL:
        sets["generated"] = GeneratedSequences(args, digits, args.test_sequences or TEST_SEQUENCES)
    if stored is not None:
        name = "published" if path.suffix == ".npy" else "file"
        sets[name if args.size == FULL else f"{name}, shrunk"] = stored
    return sets


# Training


def train(experiment: run.Experiment, loaded: Loaded) -> dict[str, training.Trained]:
    """Trains the networks; returns them by name."""
    args, digits = experiment.args, shrink(loaded.digits, experiment.args.size)
    stages, inputs = curriculum(args, min(args.checkpoint_every, args.iterations))

    def sequences(first, end, steps):
        frames = dict(frames=inputs[steps] + steps, size=args.size)
        batches = data.moving_digits(digits, args.batch_size, end, first, args.seed, **frames)
        return data.split_frames(batches, inputs[steps])

    sizes = dict(image_shape=(args.size, args.size, 1), kernel_size=kernel_size(args.size), width=args.width)
    sizes.update(input_frames=args.input_frames, output_frames=args.output_frames)
    builders = {
        "dfn": functools.partial(NETWORKS[args.network], **sizes),
        "baseline": functools.partial(build_baseline, args.baseline_bias, sizes),
    }
    return training.train_networks(experiment, builders, losses.clipped_bce, sequences, stages=stages)


def curriculum(args: argparse.Namespace, epoch: int):
    """Returns the stages of the training, and the numbers of given frames by those of predicted ones.

    Args:
        args: The options.
        epoch: Number of steps of an epoch, with which every stage starts.
    """
    counts = [*(args.stages if args.curriculum else []), (args.input_frames, args.output_frames)]
    last = min(args.curriculum * args.iterations, (args.iterations - 1) // epoch * epoch)
    part = last / max(len(counts) - 1, 1)
    firsts = {round(part * i / epoch) * epoch: outputs for i, (_, outputs) in enumerate(counts)}
    inputs = {outputs: inputs for inputs, outputs in counts}
    return [(first, {"steps": outputs}) for first, outputs in firsts.items()], inputs


def kernel_size(size: int) -> int:
    """Returns the smallest odd window that contains every motion of a digit from one frame to the next."""
    return 2 * math.ceil(3.6 * size / FULL) + 1


def build_baseline(bias: float, sizes) -> keras.Model:
    """Builds the baseline with an initial bias of its last layer.

    Predictions below zero are clipped and have no gradient. With a learning rate above that of the paper, 1e-4, all
    pixels of the baseline are soon below zero, unless it starts with a positive bias.
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
    if "dfn" in networks and args.network == "paper":  # a single filtering, which contains all of the motion
        size, given = kernel_size(args.size), args.test_frames[0]
        pairs = digit_flow.moving_pairs(loaded.test_digits, TEST_SEQUENCES, 1 + given, args.size, TEST_SEED)
        content["end_point_error"] = digit_flow.end_point_errors(networks["dfn"], pairs, size, given)
    return content


def out_of_domain(args: argparse.Namespace, loaded: Loaded):
    """Returns sequences of other numbers of digits than those of the training, by number of digits."""
    count = min(args.test_sequences or TEST_SEQUENCES, TEST_SEQUENCES)
    return {digits: GeneratedSequences(args, loaded.test_digits, count, digits) for digits in (1, 3)}


def predictor(network: keras.Model, steps: int):
    """Returns a function of given frames that returns `steps` predicted ones, as NumPy arrays."""
    predict = tf.function(functools.partial(network, steps=steps))
    return lambda inputs: predict(tf.constant(inputs)).numpy()


def errors(predictors, batches):
    """Computes errors in nats per frame, by name: of functions of given frames, and of predictions without learning."""
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
    given, predicted = args.test_frames
    print(f"\nBinary cross-entropy of {predicted} predicted frames, {given} given, {content['unit']}:")
    groups = {f"test, {name}": errors for name, errors in content["test"].items()}
    groups.update({f"digits: {count}": errors for count, errors in content["out_of_domain"].items()})
    for group, by_name in groups.items():
        print(f"  {group} ({next(iter(by_name.values()))['images'] // predicted} sequences)")
        for name, error in by_name.items():
            note = f"   {networks[name].count_params():,} parameters" if name in networks else ""
            print(f"    {name:<12} {error['mean']:8.1f}{note}")
    if "end_point_error" in content:
        print(
            "Motion from the last given frame to the next one, where digits do not overlap, end-point error in pixels:"
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
    for name, figure in drawn.items():
        figure.savefig(args.out / name, dpi=110)
    sides = [examples[name] for name in ("targets", "predictions", "baseline") if name in examples]
    films = [np.concatenate([examples["inputs"], frames], axis=1) for frames in sides]
    film = np.concatenate([np.concatenate(films, axis=3)[i] for i in range(len(sides[0]))], axis=1)
    figures.save_gif(args.out / "predictions.gif", film, scale=max(1, 128 // args.size))
    return [*drawn, "predictions.gif"]


def predictions(networks: dict[str, keras.Model], batches, count: int):
    """Returns the first `count` sequences of `batches` and their predictions, as arguments of the figures."""
    inputs, targets = next(iter(batches))
    inputs, targets = inputs[:count], targets[:count]
    made = {name: network(inputs, steps=targets.shape[1]).numpy().clip(0, 1) for name, network in networks.items()}
    if len(made) == 1:
        return dict(inputs=inputs, targets=targets, predictions=next(iter(made.values())))
    return dict(inputs=inputs, targets=targets, predictions=made["dfn"], baseline=made["baseline"])


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
    print_errors(args, content, networks)
    run.conclude(experiment, trained, content, draw(args, networks, loaded))
    return 0


if __name__ == "__main__":
    run.run_script(main)
