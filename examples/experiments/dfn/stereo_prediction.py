# SPDX-License-Identifier: Apache-2.0
"""Predicts the right view of a stereo camera from the left one (Dynamic Filter Networks, section 4.3).

    python -m examples.experiments.dfn.stereo_prediction --baseline
    python -m examples.experiments.dfn.stereo_prediction --baseline --stereo sequence_a sequence_b sequence_to_test_on

The network generates a filter of one row and 13 columns, and a bias, for every pixel, and filters the left view with
them. The offset that a filter selects is a disparity, which is never supervised. The baseline (`--baseline`) generates
the pixels directly. Networks are tested on a sequence that they were not trained on: `--test-sequence` chooses one of
the KITTI and the Karlsruhe sequence of the data folder for tests, and the other one is for training. If a sequence is
missing, or with `--synthetic`, synthetic textures replace them. Their true disparity is known, and the disparity that
the filters imply is compared with it.

A filter covers 6 pixels on both sides, so the right crop is taken 6 pixels to the left of the left one, and disparities
from 0 to 12 pixels fit. Images are scaled so that most disparities fit: to 64 rows, the fewest that crops of 64 x 64
allow. Training images are augmented, since one sequence comes from one camera in one light, and networks overfit to it:

* scaled to 72 rows, too, so that the horizon is not always in the same row of a crop;
* mirrored, which exchanges the left and the right view;
* stretched in columns, which changes all disparities;
* with varied exposure of the crops.

Sources of the data, and how to use other data: docs/guide/data.md.

`--recipe reduced` is for a CPU; `--recipe paper` trains for as many iterations as the paper, which needs a GPU.

Errors are squared errors as in the paper: the mean per pixel x 64 x 64. They are compared with the errors of four
predictions without a network:

* the left crop itself;
* the left crop, shifted by the offset that is best for the training images, at the size of the test images;
* the left crop, shifted by the offset that is best for all test images, which their right views determine;
* the left crop, shifted by the offset that is best for each test image, which its right view determines.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from examples.experiments import data, figures
from examples.experiments.core import evaluation, losses, options, run, training
from examples.experiments.data.photographs import read_grey, resized
from examples.experiments.dfn import crops, stereo_disparity
from keras_dynfilter import inspection, models

RECIPES = {
    "paper": {"batch_size": 16, "iterations": 20_000, "learning_rate": 1e-3, "schedule": "paper"},
    "reduced": {
        "batch_size": 8,
        "iterations": 1_000,
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "clip_norm": 1.0,
    },
}
SMOKE = {
    "size": 32,
    "rows": 36,
    "training_rows": [36, 40],
    "training_stretch": [1.0],
    "width": 0.125,
    "batch_size": 2,
    "iterations": 6,
    "checkpoint_every": 3,
    "synthetic_pairs": 8,
    "test_pairs": 8,
}
# The paper reports 0.52 for the DFN; its released code reaches 1.35.
PAPER = {"dfn": "0.52 (its released code 1.35)", "baseline": "1.68 (1.70)"}
SEQUENCES = ("kitti_seq1", "karlsruhe_drive0023")
TEDDY_ROWS = 80  # at which the disparities are from 3 to 12 pixels
TEST_SEED = 2**31  # above the largest seed of a training

Pair = tuple[np.ndarray, np.ndarray]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_training_parser(__doc__, "outputs/stereo_prediction", RECIPES)
    crops.add_options(parser, "synthetic pairs")
    add = parser.add_argument
    add(
        "--stereo",
        nargs="+",
        metavar="FOLDER",
        help="sequences with subfolders left/ and right/, or subfolders named as in KITTI, instead of the data folder; "
        "the last sequence is for tests",
    )
    add(
        "--test-sequence",
        choices=SEQUENCES,
        default=SEQUENCES[0],
        help="the sequence of the data folder to test on; the other one is for training",
    )
    add("--rows", type=options.positive_int, default=64, help="rows of test images, at least --size")
    add(
        "--training-rows",
        type=options.positive_int,
        nargs="+",
        default=[64, 72],
        help="rows of training images; every image is used at each size",
    )
    add(
        "--training-stretch",
        type=options.positive_float,
        nargs="+",
        default=[0.8, 1.0, 1.2],
        help="factors of the columns of training images; every factor is used, and changes disparities",
    )
    add(
        "--exposure",
        type=options.fraction,
        default=0.4,
        help="how much gain and gamma of training crops vary; 0: not at all",
    )
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} stereo/{', stereo/'.join(SEQUENCES)}")
    add("--synthetic-pairs", type=options.positive_int, default=600, help="number of synthetic pairs to train on")
    add("--test-pairs", type=options.positive_int, default=200, help="number of synthetic pairs to test on")
    add(
        "--radius",
        type=options.positive_int,
        default=6,
        help="pixels of a filter on each side, which is half the largest disparity",
    )
    args = options.parse(parser, arguments, SMOKE, RECIPES)
    folders = {pathlib.Path(folder).resolve() for folder in args.stereo or ()}  # a folder may be given by two paths
    if args.stereo and (args.synthetic or len(folders) < max(2, len(args.stereo))):
        parser.error("argument --stereo: expected two sequences or more, all different, without --synthetic")
    if args.size % 2 or args.size < 16:
        parser.error(f"argument --size: expected an even number of at least 16, received {args.size}")
    if 2 * args.radius >= args.size:
        parser.error(f"argument --radius: expected less than half of --size {args.size}, received {args.radius}")
    if min(args.rows, *args.training_rows) < args.size:
        parser.error(f"argument --rows, --training-rows: expected --size {args.size} at least")
    return args


# Data


class Loaded(NamedTuple):
    """Holds the data. A pair is `(left, right)`, `[count, height, width]` each.

    Attributes:
        pairs: Pairs to train on, by name.
        same_size: Pairs to train on, at the size of the test images.
        tested: Name of the pair to test on.
        images: Pair to test on.
        teddy: Result of `load_teddy`.
    """

    pairs: dict[str, Pair]
    same_size: list[Pair]
    tested: str
    images: Pair
    teddy: tuple[np.ndarray, np.ndarray, np.ndarray] | None


def load(args: argparse.Namespace) -> Loaded:
    """Loads pairs, or generates synthetic pairs."""
    sequences = load_sequences(args)
    if args.flow_truth is None:
        args.flow_truth = sequences is None
    if sequences is None:
        pairs = {"synthetic": synthetic(args, args.synthetic_pairs, args.seed, args.size * 5 // 4)[0]}
        sequences = pairs, [*pairs.values()], "synthetic", synthetic_test(args)[0]
    loaded = Loaded(*sequences, load_teddy(args))
    for name, (left, _) in loaded.pairs.items():
        name = f"{name} (see --training-rows, --training-stretch, --radius)"
        crops.corners(left.shape[1], left.shape[2] - args.radius, args.size, name)
    for left, _ in (*loaded.same_size, loaded.images):
        crops.corners(left.shape[1], left.shape[2] - args.radius, args.size)
    return loaded


def load_sequences(args: argparse.Namespace):
    """Returns the first four attributes of `Loaded`; None if there are no sequences."""
    if args.stereo:
        tested = args.stereo[-1]
        folders = {folder: folder for folder in args.stereo}
    else:
        tested = args.test_sequence
        folders = {name: data.find_data(f"stereo/{name}", args.data_dir) for name in SEQUENCES}
        missing = [f"stereo/{name}" for name, folder in folders.items() if folder is None]
        if missing and not args.synthetic:
            print(f"Not found: {', '.join(missing)}. Synthetic textures replace them; see --stereo and --data-dir.")
        if missing or args.synthetic:
            return None
    test_folder = folders.pop(tested)
    read = functools.cache(data.load_stereo)
    pairs = {}
    for name, folder in folders.items():
        for rows in args.training_rows:
            columns = read(folder, rows)[0].shape[2]
            for stretch in args.training_stretch:
                width = max(1, round(stretch * columns))
                pairs[f"{name}, {rows} x {width}"] = read(folder, rows if width == columns else (rows, width))
    return pairs, [read(folder, args.rows) for folder in folders.values()], tested, read(test_folder, args.rows)


def synthetic(args: argparse.Namespace, count: int, seed: int, size: int):
    """Generates pairs of `size` rows with disparities that fit the filters.

    Returns:
        The pair `(left, right)`, the disparity of the right views, and the mask of pixels that left views also show.
    """
    left, right, disparity, known = data.synthetic_stereo(count, size, 2 * args.radius, seed)
    return (left[..., 0], right[..., 0]), disparity, known


def synthetic_test(args: argparse.Namespace):
    """Generates test pairs of one crop each. Returns what `synthetic` returns, cut to the crops."""
    pair, disparity, known = synthetic(args, args.test_pairs, TEST_SEED, args.size + args.radius)
    disparity, known = (array[:, : args.size, : args.size] for array in (disparity, known))
    column = np.arange(args.size) + disparity - args.radius  # of the left crop
    known = known & (column >= 0) & (column <= args.size - 1)
    return tuple(side[:, : args.size] for side in pair), disparity, known


def load_teddy(args: argparse.Namespace):
    """Loads the pair "teddy" of Middlebury, scaled so that its disparities fit.

    Returns:
        The left view, the right view, and the disparity of the right view, NaN where it is unknown. None if the pair
        is not found, or does not suit --size and --radius.
    """
    folder = data.find_data("stereo/middlebury_teddy", args.data_dir)
    if folder is None or args.synthetic or args.size > TEDDY_ROWS or args.radius != 6:
        return None
    left, right, disparity = (read_grey(folder / name) for name in ("im2.png", "im6.png", "disp6.png"))
    known = (disparity > 0).astype(np.float32)
    scale = TEDDY_ROWS / len(left)
    left, right, disparity, known = (resized(image, TEDDY_ROWS) for image in (left, right, disparity, known))
    # The file stores four times the disparity, from 0 to 255. Division by `known` averages over the known pixels.
    disparity = np.where(known > 0.5, disparity * 255 / 4 * scale / np.maximum(known, 0.5), np.nan)
    return left, right, disparity


def cut(left: np.ndarray, right: np.ndarray, size: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts crops, `[crops, size, size, 1]` each, at fixed places; right crops are `shift` pixels to the left."""
    lefts, rights = [], []
    for row, column in crops.corners(left.shape[1], left.shape[2] - shift, size):
        lefts.append(left[:, row : row + size, column + shift : column + shift + size, None])
        rights.append(right[:, row : row + size, column : column + size, None])
    return np.concatenate(lefts), np.concatenate(rights)


# Training


def train(experiment: run.Experiment, loaded: Loaded) -> dict[str, training.Trained]:
    """Trains the networks; returns them by name."""
    args, pairs = experiment.args, loaded.pairs.values()
    # In mirrored images, the cameras change sides, and disparities stay the same.
    sides = [*pairs, *((right[..., ::-1], left[..., ::-1]) for left, right in pairs)]

    def batches(first, end):
        return data.stereo_crops(sides, args.batch_size, end, first, args.seed, args.size, args.radius, args.exposure)

    image_shape = (None, None, 1) if args.tied else (args.size, args.size, 1)
    sizes = dict(image_shape=image_shape, kernel_size=(1, 2 * args.radius + 1), width=args.width)
    builders = {
        "dfn": functools.partial(models.dfn_stereo, **sizes, untied_bias=not args.tied),
        "baseline": functools.partial(models.dfn_stereo_baseline, **sizes, untied_bias=not args.tied),
    }
    return training.train_networks(experiment, builders, losses.squared_error, batches)


# Evaluation


def evaluate(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> dict[str, Any]:
    """Computes the errors of the networks, and of shifts, for the results."""
    test = cut(*loaded.images, args.size, args.radius)
    training_crops = [cut(*pair, args.size, args.radius) for pair in loaded.same_size]
    offsets, by_training = stereo_disparity.shift_errors(
        *(np.concatenate(side) for side in zip(*training_crops)), args.radius
    )
    _, by_image = stereo_disparity.shift_errors(*test, args.radius)
    by_test = by_image.mean(axis=1)
    best, best_of_test = offsets[by_training.mean(axis=1).argmin()], offsets[by_test.argmin()]
    predictors = {name: functools.partial(crops.predict, network) for name, network in networks.items()}
    predictors["one shift"] = functools.partial(stereo_disparity.shifted, offset=best)
    predictors["left crop"] = lambda left: left
    errors = crops.errors(predictors, {loaded.tested: test})["all"]
    for name, error in {"one shift, test": by_test.min(), "shift per image": by_image.min(axis=0).mean()}.items():
        errors[name] = {"mean": float(error) * evaluation.PIXELS, "per_frame": []}
    content = {
        "unit": "squared error: mean per pixel x 64 x 64",
        "tested": loaded.tested,
        "test": {"all": errors},
        "best_shift": {"disparity": float(best + args.radius), "disparity_of_test": float(best_of_test + args.radius)},
        "paper": PAPER,
    }
    if "dfn" in networks:
        content["disparity_error"] = disparity_errors(args, networks["dfn"], loaded.teddy)
    return content


def disparity_errors(args: argparse.Namespace, network: keras.Model, teddy):
    """Computes errors of the disparities that the filters imply, on synthetic pairs and on teddy, by data set."""
    errors = {}
    if args.flow_truth:
        pair, truth, known = synthetic_test(args)
        left, _ = cut(*pair, args.size, args.radius)
        disparity = stereo_disparity.filter_offsets(network, left, args.radius) + args.radius
        errors["synthetic"] = stereo_disparity.mean_disparity_errors(disparity, truth, known, args.radius)
    if teddy is not None:
        left, _, truth = teddy
        truth = truth[:, : -args.radius]
        known = truth <= 2 * args.radius  # False for NaN
        disparity = stereo_disparity.disparity_map(network, left, args.size, args.radius, args.tied)
        errors["middlebury teddy"] = stereo_disparity.mean_disparity_errors(disparity, truth, known, args.radius)
    return errors


def print_errors(content: dict[str, Any], networks: dict[str, keras.Model]) -> None:
    """Prints errors by network."""
    print(f"\nErrors of the right view on {content['tested']}, {content['unit']}:")
    crops.print_errors(content["test"], networks, PAPER)
    shift = content["best_shift"]
    disparities = f"{shift['disparity']:g} for the training images, {shift['disparity_of_test']:g} for the test images"
    print(f"  (one shift, as a disparity in pixels: {disparities})")
    for name, errors in content.get("disparity_error", {}).items():
        print(f"Disparity, {name}, mean error in pixels:")
        for candidate, error in errors.items():
            print(f"    {candidate:<16} {error:6.2f}")


# Figures


def draw(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> list[str]:
    """Draws predictions of crops, and the disparity of whole images. Returns the names of the files."""
    test = cut(*loaded.images, args.size, args.radius)
    left, right = (side[np.linspace(0, len(side) - 1, 4).round().astype(int)] for side in test)
    predictions = {name: crops.predict(network, left) for name, network in networks.items()}
    if "dfn" not in networks:
        blank = np.full(left.shape[:3], np.nan)
        drawn = {"baseline.png": figures.stereo_figure(left, right, predictions["baseline"], blank)}
    else:
        network = networks["dfn"]
        disparity = stereo_disparity.filter_offsets(network, left, args.radius) + args.radius
        limits = (0, 2 * args.radius)
        filters = inspection.generated_filters(network, left[:1])[0]
        drawn = {
            "predictions.png": figures.stereo_figure(
                left, right, predictions["dfn"], disparity, predictions.get("baseline"), limits=limits
            ),
            "filters.png": figures.filters_figure(left[0], filters, (1, 2 * args.radius + 1)),
            "disparity.png": draw_map(args, network, *(side[len(side) // 2] for side in loaded.images)),
        }
        if loaded.teddy is not None:
            drawn["teddy.png"] = draw_map(args, network, *loaded.teddy)
    return run.save_figures(args, drawn)


def draw_map(
    args: argparse.Namespace, network: keras.Model, left: np.ndarray, right: np.ndarray, truth: np.ndarray | None = None
):
    """Draws both views `[height, width]` and the disparity of the right view; below each other if they are wide."""
    pictures = {"left view": left[:, args.radius :], "right view": right[:, : -args.radius]}
    maps = {
        "disparity of the filters": stereo_disparity.disparity_map(network, left, args.size, args.radius, args.tied)
    }
    if truth is not None:
        maps["true disparity"] = truth[:, : -args.radius]
    wide = 2.5 * left.shape[0] < left.shape[1]
    shape = (len(pictures) + len(maps), 1) if wide else (1, len(pictures) + len(maps))
    height = 9 * left.shape[0] / left.shape[1] if wide else 3.4
    figure = inspection.new_figure(10, (height + 0.3) * shape[0])
    axes = figure.subplots(*shape, squeeze=False).ravel()
    for axis, (title, values) in zip(axes, {**pictures, **maps}.items()):
        style = dict(cmap="viridis", vmin=0, vmax=2 * args.radius) if title in maps else dict(cmap="gray")
        picture = axis.imshow(values, interpolation="nearest", **style)
        axis.set(xticks=[], yticks=[], title=title, facecolor="0.7")
    figure.colorbar(picture, ax=axes, label="disparity (pixels)", shrink=0.75)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, trains, evaluates and draws. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        loaded = load(args)
    views = {
        f"{name}, {side}": view for name, pair in loaded.pairs.items() for side, view in zip(("left", "right"), pair)
    }
    experiment = run.begin(args, free=["flow_truth", "test_pairs"], data=run.fingerprint(views))
    trained = train(experiment, loaded)
    if not run.finished(experiment, trained):
        return 0
    networks = {name: done.network for name, done in trained.items()}
    content = evaluate(args, networks, loaded)
    names = draw(args, networks, loaded)
    print_errors(content, networks)
    run.conclude(experiment, trained, content, names)
    return 0


if __name__ == "__main__":
    run.run_script(main)
