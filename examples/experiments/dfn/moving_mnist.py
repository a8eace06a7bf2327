# SPDX-License-Identifier: Apache-2.0
"""Predicts the next frames of two moving digits (Dynamic Filter Networks, section 4.2).

    python -m examples.experiments.dfn.moving_mnist --baseline

From the frames it has seen, the network generates a filter for every pixel, and filters the last frame with them; the
result is the next frame, and its own input for the one after. The twin (`--baseline`) makes the pixels itself, with as
many parameters. Training sequences are drawn as they are needed, from MNIST if it can be had.

`--recipe reduced` is for two CPU cores and about an hour of each: a quarter of the width, five frames in and three out,
and a curriculum that begins with one. `--recipe paper` is the setting of the paper, 20,000 iterations of 16
sequences of ten frames in and ten out, which needs a GPU. `--recipe better` trains the same network as long, with a
curriculum and a learning rate that falls along a cosine; `--recipe blended` trains a network of our own like that,
which has no more parameters. An interrupted run goes on with `--resume`, and ends with the same bits.

Errors are given as in the paper: binary cross-entropy in nats per frame, which is the mean per pixel times 64 x 64,
whatever the size. Targets are grey, so a perfect prediction does not cost 0; what it costs is printed beside. With
`--resume --test-frames 10:20`, a trained network is tested on other numbers of frames than it was trained on.

Where the data come from, and how to use other ones: docs/data.md.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import functools
import math

import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments import figures as figures_module
from examples.experiments.core import common, experiment, harness
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
FULL = 64  # size of the frames of the paper, with digits of 28 pixels that fly 3.6 pixels a frame
PUBLISHED = "moving_mnist/mnist_test_seq.npy"
FILE = "moving_mnist/generated_test_300.npz"
TEST_SEED = 2**31  # no training can have it
TEST_BATCH = 50


def stage(text):
    """Argument type: numbers of frames as `INPUT:OUTPUT`."""
    try:
        inputs, outputs = (int(part) for part in text.split(":"))
    except ValueError:
        inputs = outputs = 0
    if min(inputs, outputs) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of frames as INPUT:OUTPUT, received {text!r}")
    return inputs, outputs


def finite(text):
    """Argument type: a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, received {text!r}")
    return value


def parse(arguments=None):
    parser = experiment.new_parser(__doc__, "outputs/moving_mnist", RECIPES)
    add = parser.add_argument
    add("--network", choices=NETWORKS, default="paper", help="that of the paper, or one that also paints and blends")
    add(
        "--size",
        type=int,
        choices=(16, 32, 64),
        default=FULL,
        help="rows and columns of a frame; digits shrink with them",
    )
    add("--input-frames", type=common.positive_int, default=10, help="frames given")
    add("--output-frames", type=common.positive_int, default=10, help="frames to predict")
    add("--curriculum", type=common.share, metavar="SHARE", help="share of the training with fewer frames; 0: none")
    add(
        "--stages",
        nargs="+",
        type=stage,
        default=[(3, 1), (4, 2), (6, 4), (10, 7)],
        metavar="INPUT:OUTPUT",
        help="frames given and predicted in the equal parts of the curriculum; fewer than --output-frames, or left out",
    )
    add("--digits", choices=("auto", "mnist", "rendered"), default="auto", help="MNIST, or drawn with fonts")
    add("--data-dir", metavar="DIR", help=f"{common.DATA_DIR}: mnist/mnist.npz, and {PUBLISHED} or {FILE}")
    add(
        "--test-sequences",
        type=common.positive_int,
        metavar="COUNT",
        help="test on as many made ones; by default on those of the data folder, or else on 300",
    )
    add(
        "--test-frames",
        type=stage,
        metavar="INPUT:OUTPUT",
        help="frames given and predicted in all tests; by default as in the training",
    )
    add("--baseline-bias", type=finite, default=0.0, metavar="X", help="bias of the last layer of the twin, at first")
    args = harness.parse(parser, arguments, SMOKE, RECIPES)
    outputs = [count for _, count in args.stages]
    if sorted(set(outputs)) != outputs:
        parser.error(f"argument --stages: expected the numbers of predicted frames to grow, received {outputs}")
    args.stages = [frames for frames in args.stages if frames[1] < args.output_frames]
    args.test_frames = args.test_frames or (args.input_frames, args.output_frames)
    return args


def kernel_size(size):
    """The smallest odd window that a digit cannot leave within a frame."""
    return 2 * math.ceil(3.6 * size / FULL) + 1


def shrink(images, size):
    """Averages `[..., height, width]`, uint8, over areas that make `size` x `size` of 64 x 64; float32 in [0, 1]."""
    factor = FULL // size
    *axes, height, width = images.shape
    areas = images.reshape(*axes, height // factor, factor, width // factor, factor)
    return areas.mean(axis=(-3, -1), dtype=np.float32) / np.float32(255)


def stages(args, epoch):
    """The curriculum: pairs of first step and arguments of the network, and the given frames by predicted ones."""
    counts = [*(args.stages if args.curriculum else []), (args.input_frames, args.output_frames)]
    last = min(args.curriculum * args.iterations, (args.iterations - 1) // epoch * epoch)
    part = last / max(len(counts) - 1, 1)
    firsts = {round(part * i / epoch) * epoch: outputs for i, (_, outputs) in enumerate(counts)}
    given = {outputs: inputs for inputs, outputs in counts}
    return [(first, {"steps": outputs}) for first, outputs in firsts.items()], given


class Sequences:
    """Sequences of digits, `count` of them in batches `(inputs, targets)`, the same ones each time."""

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
    """Stored sequences have fewer frames than are asked for."""


class StoredSequences:
    """The sequences of a file, shrunk if need be, in batches `(inputs, targets)`.

    Args:
        args: The arguments of the run.
        path: A `.npy` of `[frames, sequences, 64, 64]`, as the test set is published, or a `.npz` with `sequences`,
            `[sequences, frames, 64, 64]`; uint8.

    Raises:
        TooShort: The file holds too few frames.
        ValueError: It does not hold that at all.
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
        except Exception as error:  # NumPy has many for files that are damaged, or none of its own
            raise ValueError(f"{expected}. Received: {error}") from error
        if len(shape) != 4 or not shape[0] or shape[2:] != (FULL, FULL) or dtype != np.uint8:
            raise ValueError(f"{expected}. Received: shape={shape}, dtype={dtype}")
        if shape[1] < self.frames:
            raise TooShort(f"{expected}. Received: {shape[1]} frames")

    def __iter__(self):
        for first in range(0, len(self.sequences), TEST_BATCH):
            frames = shrink(self.sequences[first : first + TEST_BATCH, : self.frames], self.size)[..., None]
            yield frames[:, : self.inputs], frames[:, self.inputs :]


def test_sets(args, digits):
    """Sequences to test on, by name. Those of the file come from larger frames if they are shrunk: their digits lie
    between pixels, which those of the training never do, and so the generated ones are the test then. So they are where
    the file has too few frames."""
    path = data.find_data(PUBLISHED, args.data_dir) or data.find_data(FILE, args.data_dir)
    stored = None
    if path is not None and not args.test_sequences:
        try:
            stored = StoredSequences(args, path)
        except TooShort as error:
            print(f"{error}. Tests on generated ones instead.")
    sets = {}
    if stored is None or args.size != FULL:
        sets["generated"] = Sequences(args, digits, args.test_sequences or 300)
    if stored is not None:
        name = "published" if path.suffix == ".npy" else "file"
        sets[name if args.size == FULL else f"{name}, shrunk"] = stored
    return sets


def predictor(network, steps):
    """A function of given frames that returns `steps` predicted ones, as NumPy arrays."""
    predict = tf.function(functools.partial(network, steps=steps))
    return lambda inputs: predict(tf.constant(inputs)).numpy()


def evaluate(predictors, batches):
    """Errors in nats per frame, of functions of given frames and of what takes no learning, by name."""
    count = image = 0
    for _, targets in batches:
        count, image = count + len(targets), image + targets.mean(axis=1).sum(axis=0)
    predictors = dict(predictors)
    predictors["mean image"] = lambda inputs: np.broadcast_to(image / count, (len(inputs), 1, *image.shape))
    predictors["last frame"] = lambda inputs: inputs[:, -1:]
    figures = common.errors_per_image(common.clipped_bce, predictors, batches)
    perfect = ((targets, targets) for _, targets in batches)
    return {**figures, **common.errors_per_image(common.clipped_bce, {"perfect": lambda targets: targets}, perfect)}


def draw(networks, batches, others, args):
    """Figures of predictions on the first sequences of `batches`, and of `others` by number of digits."""

    def sequences(source, count):
        inputs, targets = next(iter(source))
        inputs, targets = inputs[:count], targets[:count]
        steps = targets.shape[1]
        shown = {name: network(inputs, steps=steps).numpy().clip(0, 1) for name, network in networks.items()}
        if len(shown) == 1:
            return dict(inputs=inputs, targets=targets, predictions=next(iter(shown.values())))
        return dict(inputs=inputs, targets=targets, predictions=shown["dfn"], baseline=shown["baseline"])

    examples = sequences(batches, 3)
    groups = {f"{count} digit{'s' if count > 1 else ''}": sequences(source, 2) for count, source in others.items()}
    figures = {
        "predictions.png": figures_module.moving_mnist_figure(**examples),
        "out_of_domain.png": figures_module.out_of_domain_figure(groups),
    }
    if "dfn" in networks:
        inputs = examples["inputs"]
        size = kernel_size(args.size)
        filters = inspection.generated_filters(networks["dfn"], inputs, steps=1)[
            ..., : size**2
        ]  # of the first filtering
        flow = inspection.filters_to_flow(filters, size)
        next_frame = dict(targets=examples["targets"][:, :1], predictions=examples["predictions"][:, :1])
        figures["flow.png"] = figures_module.highway_figure(inputs[:, -2:], **next_frame, flow=flow)
        figures["filters.png"] = figures_module.filters_figure(inputs[0, -1], filters[0, 0], size)
    for name, figure in figures.items():
        figure.savefig(args.out / name, dpi=110)
    sides = [examples[name] for name in ("targets", "predictions", "baseline") if name in examples]
    films = [np.concatenate([examples["inputs"], frames], axis=1) for frames in sides]
    film = np.concatenate([np.concatenate(films, axis=3)[i] for i in range(len(sides[0]))], axis=1)
    figures_module.save_gif(args.out / "predictions.gif", film, scale=max(1, 128 // args.size))
    return [*figures, "predictions.gif"]


def build_baseline(bias, sizes):
    """The twin. Predictions below zero are clipped and have no gradient; at learning rates above the paper's for the
    twin, 1e-4, it ends there at once, with all of its pixels, unless it starts above."""
    network = models.dfn_moving_mnist_baseline(**sizes)
    network.output_layer.bias.assign([bias])
    return network


def main(arguments=None):
    """Returns the exit status."""
    args = parse(arguments)
    with experiment.preparing(args):
        loaded, source = data.load_digits("train", args.data_dir, args.digits, return_source=True)
        digits = shrink(loaded, args.size)
        test_digits = shrink(data.load_digits("test", args.data_dir, source), args.size)
        tests = test_sets(args, test_digits)
    free = ["digits", "test_sequences", "test_frames"]
    run = harness.begin(args, free=free, data=common.fingerprint({"digits": loaded}))

    epoch = min(args.checkpoint_every, args.iterations)
    plan, given = stages(args, epoch)

    def sequences(first, end, steps):
        frames = dict(frames=given[steps] + steps, size=args.size)
        batches = data.moving_digits(digits, args.batch_size, end, first, args.seed, **frames)
        return data.split_frames(batches, given[steps])

    sizes = dict(image_shape=(args.size, args.size, 1), kernel_size=kernel_size(args.size), width=args.width)
    sizes.update(input_frames=args.input_frames, output_frames=args.output_frames)
    builders = {
        "dfn": functools.partial(NETWORKS[args.network], **sizes),
        "baseline": functools.partial(build_baseline, args.baseline_bias, sizes),
    }
    trained = harness.train_networks(run, builders, common.clipped_bce, sequences, stages=plan)
    if not experiment.finished(run, trained):
        return 0
    networks = {name: done.network for name, done in trained.items()}
    predictors = {name: predictor(network, args.test_frames[1]) for name, network in networks.items()}
    others = {count: Sequences(args, test_digits, min(args.test_sequences or 300, 300), count) for count in (1, 3)}
    content = {
        "unit": "nats per frame: mean per pixel x 64 x 64",
        "digits": source,
        "test_frames": args.test_frames,
        "test": {name: evaluate(predictors, batches) for name, batches in tests.items()},
        "out_of_domain": {str(count): evaluate(predictors, batches) for count, batches in others.items()},
    }
    if "dfn" in networks and args.network == "paper":  # all of its motion is in one filtering
        pairs = digit_flow.moving_pairs(test_digits, 300, 1 + args.test_frames[0], args.size, TEST_SEED)
        content["end_point_error"] = digit_flow.end_point_errors(
            networks["dfn"], pairs, kernel_size(args.size), args.test_frames[0]
        )
    print_errors(args, content, networks)
    experiment.conclude(run, trained, content, draw(networks, next(iter(tests.values())), others, args))
    return 0


def print_errors(args, content, networks):
    given, predicted = args.test_frames
    print(f"\nBinary cross-entropy of {predicted} predicted frames, {given} given, {content['unit']}:")
    groups = {f"test, {name}": errors for name, errors in content["test"].items()}
    groups.update({f"digits: {count}": errors for count, errors in content["out_of_domain"].items()})
    for group, errors in groups.items():
        print(f"  {group} ({next(iter(errors.values()))['images'] // predicted} sequences)")
        for name, error in errors.items():
            note = f"   {networks[name].count_params():,} parameters" if name in networks else ""
            print(f"    {name:<12} {error['mean']:8.1f}{note}")
    if "end_point_error" in content:
        print("Motion from the last frame given to the next one, end-point error in pixels, where one digit is alone:")
        for name, error in content["end_point_error"].items():
            print(f"    {name:<18} {error:8.2f}")


if __name__ == "__main__":
    experiment.run_script(main)
