# SPDX-License-Identifier: Apache-2.0
"""Learns a steerable filter from images, angles and filtered images (Dynamic Filter Networks, section 4.1).

    python -m examples.experiments.dfn.steerable_filters

The network gets an image and an angle, and is trained on the image filtered at that angle; it never sees a filter. It
generates a 9 x 9 filter from the angle, and a dynamic convolution applies the filter. At the end, the generated filters
are compared with the formula of the true filters, the derivative of a Gaussian along the angle.

Expected: a correlation of generated and true filter above 0.999 at each of 360 angles, after about 20 s of training on
two CPU cores with the compiled ops, or two to three minutes without them. Images are patches of the photographs in
scikit-image, so nothing is downloaded. `--baseline` also trains a network with fixed filters, which takes several
minutes more and ends with about ten times the error.

Exit status: 1 if the correlation is below the target, unless the options set fewer steps than the default; otherwise 0.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import functools
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import exports, files, options, run, training
from examples.experiments.data import photographs
from keras_dynfilter import inspection, models

DEGREES = (0.0, 90.0, 139.2, 180.0, 242.9)
TARGET = 0.999
EPOCHS, STEPS = 8, 500  # enough to reach the target
SMOKE = {"epochs": 2, "steps": 20, "batch_size": 8, "patches": 64}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    options.add_run_options(parser, "outputs/steerable")
    add = parser.add_argument
    add("--images", default="photos", metavar="KIND", help="photos (of scikit-image), noise, or a folder of images")
    add("--data-dir", default=".", metavar="DIR", help="folder that contains a relative path of --images")
    add("--raw-angles", action="store_true", help="feed radians, not angle/pi - 1 (learns more slowly)")
    add("--epochs", type=options.positive_int, default=EPOCHS, help="epochs, each of which ends with a checkpoint")
    add("--steps", type=options.positive_int, default=STEPS, help="training steps per epoch")
    add("--batch-size", type=options.positive_int, default=32, help="triples (image, angle, filtered image) per step")
    add("--patches", type=options.positive_int, default=2048, help="number of 64 x 64 patches to draw triples from")
    add(
        "--learning-rate",
        type=options.positive_float,
        default=0.01,
        help="learning rate of Adam, which falls to zero along a cosine",
    )
    add("--baseline", action="store_true", help="also train the baseline, whose filters do not depend on the angle")
    args = options.parse(parser, arguments, SMOKE)
    if args.images not in ("photos", "noise"):
        folder = pathlib.Path(args.data_dir) / args.images
        if not folder.is_dir():
            parser.error(f"argument --images: expected photos, noise or an existing folder, received {str(folder)!r}")
        args.images = str(folder)
    return args


class Images(NamedTuple):
    """Holds standardized images, `[count, height, width, 1]`. Training and test patches are of different photographs.

    Attributes:
        train: Patches to train on.
        test: Patches to test on.
        picture: One picture for the figure.
    """

    train: np.ndarray
    test: np.ndarray
    picture: np.ndarray


def load(args: argparse.Namespace) -> Images:
    """Loads images, or generates noise."""
    tests = min(256, args.patches)
    if args.images == "noise":
        train, test = (data.noise_patches(count, seed=args.seed + i) for i, count in enumerate((args.patches, tests)))
        return Images(train, test, data.noise_patches(1, 128, seed=args.seed + 2))
    if args.images == "photos":
        images = data.load_photographs()
        held_out = 1
    else:
        images = data.load_folder(args.images)
        held_out = max(1, len(images) // 5)
        if len(images) == 1:
            print("There is only one image: training and test patches both come from it.")
    train = data.sample_patches(images[:-held_out] or images, args.patches, seed=args.seed)
    test = data.sample_patches(images[-held_out:], tests, seed=args.seed + 1)
    picture = images[-1]
    top, left = (max(0, extent - 512) // 2 for extent in picture.shape)
    picture = picture[top : top + 512, left : left + 512]
    return Images(train, test, photographs.standardize(picture[None, ..., None]))


def compiled(model: keras.Model, args: argparse.Namespace) -> keras.Model:
    """Compiles `model` with Adam, whose learning rate falls along a cosine and whose second moment adapts fast."""
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, args.epochs * args.steps)
    model.compile(
        keras.optimizers.Adam(rate, beta_2=0.99, epsilon=1e-8),
        loss="mse",
        steps_per_execution=math.gcd(args.steps, 20),
    )
    return model


def agreement(learned: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns correlation and relative L2 error of filters `[count, height, width]`, `[count]` each."""
    learned, true = (np.reshape(filters, [len(filters), -1]).astype(np.float64) for filters in (learned, true))
    error = np.linalg.norm(learned - true, axis=1) / np.linalg.norm(true, axis=1)
    learned, true = (filters - filters.mean(axis=1, keepdims=True) for filters in (learned, true))
    norms = np.linalg.norm(learned, axis=1) * np.linalg.norm(true, axis=1)
    correlation = (learned * true).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return correlation, error


def filters_at(model: keras.Model, degrees) -> tuple[np.ndarray, np.ndarray]:
    """Returns learned and true filters, `[count, 9, 9]`, at angles in degrees."""
    angles = np.deg2rad(degrees)
    return inspection.generated_filters(model, angles), data.steerable_filter(angles)


class FilterCorrelation(keras.callbacks.Callback):
    """Adds the worst correlation of learned and true filter at 360 angles to the metrics of an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worst_correlation"] = agreement(*filters_at(self.model.network, np.arange(360)))[0].min()


def squared_error(model: keras.Model, images: np.ndarray, args: argparse.Namespace):
    """Returns the mean squared errors per pixel of the model and of an image of zeros, on triples from `images`."""
    test = data.steerable_triples(images, batch_size=64, steps=max(1, len(images) // 16), seed=args.seed + 1)
    errors = [
        [np.mean(np.square(results - guess)) for guess in (model.predict_on_batch(inputs), 0)]
        for inputs, results in test.as_numpy_iterator()
    ]
    error, zeros = np.mean(errors, axis=0)
    return float(error), float(zeros)


def draw(model: keras.Model, picture: np.ndarray, path: pathlib.Path, degrees=139.2) -> None:
    """Draws learned and true filters, and a photograph that is filtered with both."""
    figure = inspection.new_figure(13, 8.6)
    figure.suptitle("A steerable filter, learned from images, angles and results", fontsize="x-large")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 0.85])
    learned, true = filters_at(model, DEGREES)
    titles = [f"{angle:g}°\ncorrelation {c:.5f}" for angle, c in zip(DEGREES, agreement(learned, true)[0])]
    inspection.show_filters(top, {"learned": learned, "true": true}, titles)

    angle = np.deg2rad([[degrees]]).astype(np.float32)
    result = model({"images": picture, "angles": angle}).numpy()
    target = data.apply_steerable_filter(picture, angle).numpy()
    difference = result - target
    times = 10 ** max(0, math.floor(math.log10(np.abs(target).max() / max(np.abs(difference).max(), 1e-9))))
    panel = {
        "image": picture,
        f"filtered at {degrees:g}°, learned": result,
        f"filtered at {degrees:g}°, true": target,
        f"{times} (learned - true)": times * difference,
    }
    inspection.show_images(bottom, {title: image[0, ..., 0] for title, image in panel.items()}, list(panel)[:1])
    with files.written_whole(path, path.suffix) as part:
        figure.savefig(part, dpi=110)


def train(experiment: run.Experiment, images: Images) -> dict[str, training.Trained]:
    """Trains the network, and with `--baseline` the baseline; returns them by name."""
    args = experiment.args

    def triples(start, end):
        return data.steerable_triples(images.train, args.batch_size, end, start, args.seed)

    networks = {"steerable": models.dfn_steerable}
    if args.baseline:
        networks["baseline"] = models.dfn_steerable_baseline
    exports.check_export_paths(args, ["steerable"])
    trained = {}
    for name, network in networks.items():
        total = args.epochs * args.steps
        print(f"\nTraining {name}: {total} steps of {args.batch_size} triples.")
        trained[name] = training.train(
            name,
            functools.partial(network, raw_angles=args.raw_angles),
            functools.partial(compiled, args=args),
            triples,
            total,
            args.steps,
            args.out,
            args.seed,
            callbacks=[FilterCorrelation()] if name == "steerable" else [],
            resume=args.resume,
            settings=experiment.settings,
        )
    return trained


def evaluate(args: argparse.Namespace, trained, images: Images) -> dict[str, Any]:
    """Computes the errors of the networks, and compares the generated filters with the formula; by name."""
    figures = {}
    for name, done in trained.items():
        error, zeros = squared_error(done.network, images.test, args)
        figures[name] = {
            "parameters": done.network.count_params(),
            "test_mse": error,
            "test_mse_of_zeros": zeros,
            "training_seconds": round(done.seconds, 1),
        }
    figures["steerable"].update(filter_figures(trained["steerable"].network))
    return figures


def filter_figures(model: keras.Model):
    """Compares the filters of `model` with the formula at 360 angles."""
    correlation, error = agreement(*filters_at(model, np.arange(360)))
    return {
        "correlation_min": float(correlation.min()),
        "correlation_mean": float(correlation.mean()),
        "relative_l2_error_max": float(error.max()),
        "relative_l2_error_mean": float(error.mean()),
        "target": TARGET,
        "target_reached": bool(correlation.min() > TARGET),
    }


def shortened(args: argparse.Namespace) -> bool:
    """Returns whether the options set fewer steps than the target needs."""
    return args.epochs * args.steps < EPOCHS * STEPS


def interpreter() -> str:
    """Returns the path of this interpreter, for commands to copy: relative if it is below the working directory."""
    path, folder = pathlib.Path(sys.executable), pathlib.Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def conclude(args: argparse.Namespace, figures: dict[str, Any], seconds: float) -> None:
    """Prints the figures, the files, and what to do next."""
    dfn = figures["steerable"]
    print(f"\nLearned and true filters at 360 angles, {dfn['training_seconds']:.0f} s of training:")
    print(f"  correlation        min {dfn['correlation_min']:.6f}   mean {dfn['correlation_mean']:.6f}")
    print(f"  relative L2 error  max {dfn['relative_l2_error_max']:.6f}   mean {dfn['relative_l2_error_mean']:.6f}")
    verdict = "reached" if dfn["target_reached"] else "MISSED"
    if shortened(args) and not dfn["target_reached"]:
        verdict = f"not reached, and not expected after {args.epochs * args.steps} steps instead of {EPOCHS * STEPS}"
    print(f"  target             min above {TARGET}: {verdict}")
    print("\nMean squared error per pixel of the results on test images:")
    print(f"  {'an image of zeros':<22} {dfn['test_mse_of_zeros']:.3e}")
    for name, figure in figures.items():
        print(f"  {name:<22} {figure['test_mse']:.3e}   {figure['parameters']:,} parameters")

    print(f"\nFigure   {args.out / 'steerable.png'}")
    print(f"Numbers  {args.out / 'results.json'}")
    print(f"Model    {args.out / 'steerable.keras'}")
    exports.print_exports(args, "steerable")
    print(f"Total time: {seconds:.0f} s.")
    python = interpreter()
    script = f"{python} -m examples.experiments.dfn.steerable_filters"
    if not args.export:
        model = args.out / "steerable"
        print(f"Next: export it: {python} -m keras_dynfilter.export {model}.keras --format onnx --out {model}.onnx")
    elif not args.baseline:
        print(f"Next: compare it with a network of fixed filters: {script} --baseline --out {args.out}_and_baseline")
    else:
        print(f"Next: train on your own images: {script} --images FOLDER")


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, trains, evaluates and draws. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        images = load(args)
    experiment = run.begin(args, data=run.fingerprint({"patches": images.train}))
    trained = train(experiment, images)
    figures = evaluate(args, trained, images)
    network = trained["steerable"].network
    draw(network, images.picture, args.out / "steerable.png")
    run.write_results(experiment, {"figures": figures, "exports": {}})  # before the exports, which may fail
    reports = exports.write_exports(args, "steerable", network)
    run.write_results(experiment, {"figures": figures, "exports": reports})
    conclude(args, figures, time.perf_counter() - experiment.began)
    return 0 if figures["steerable"]["target_reached"] or shortened(args) else 1


if __name__ == "__main__":
    run.run_script(main)
