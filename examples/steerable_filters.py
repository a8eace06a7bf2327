# SPDX-License-Identifier: Apache-2.0
"""Learns a steerable filter from examples of what it does (Dynamic Filter Networks, section 4.1).

    python examples/steerable_filters.py

The network sees an image, an angle, and the image filtered at that angle; never a filter. From the angle it generates a
9 x 9 filter, a dynamic convolution applies it, and the error of the result is all it learns from. At the end the
filters it generates are compared with the formula they should follow, the derivative of a Gaussian along the angle.

Expected: correlation of generated and true filter above 0.999 at each of 360 angles, after about 20 s of training on
two CPU cores with the compiled ops, two to three minutes without them. Images are patches of the photographs inside
scikit-image: nothing is downloaded. `--baseline` trains a network of fixed filters beside it, which takes several
minutes more and ends with about ten times the error.

Exit status: 1 if the correlation is missed, unless fewer steps than by default were asked for; else 0.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import json
import math
import pathlib
import sys
import time

import common
import keras
import numpy as np

from keras_dynfilter import data, models, visualize
from keras_dynfilter.data import photographs

DEGREES = (0.0, 90.0, 139.2, 180.0, 242.9)
TARGET = 0.999
EPOCHS, STEPS = 8, 500  # what the target takes
SMOKE = {"epochs": 2, "steps": 20, "batch_size": 8, "patches": 64}
EXPORTS = {"saved_model": "saved_model", "onnx": "steerable.onnx"}


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--images", default="photos", metavar="KIND", help="photos (of scikit-image), noise, or a folder of images")
    add("--data-dir", default=".", metavar="DIR", help="where a relative image folder is looked for")
    add("--raw-angles", action="store_true", help="feed radians, not angle/pi - 1 (learns more slowly)")
    add("--epochs", type=common.positive_int, default=EPOCHS, help="epochs, after each of which the model is saved")
    add("--steps", type=common.positive_int, default=STEPS, help="training steps of an epoch")
    add("--batch-size", type=common.positive_int, default=32, help="triples of a step")
    add("--patches", type=common.positive_int, default=2048, help="number of 64 x 64 patches to draw triples from")
    add("--learning-rate", type=float, default=0.01, help="of Adam, at the start; falls to zero along a cosine")
    add("--seed", type=int, default=0, help="of weights, patches and triples")
    add("--baseline", action="store_true", help="train the twin too, whose filters do not depend on the angle")
    add("--resume", action="store_true", help="continue a run of the same settings that was interrupted")
    add("--export", nargs="+", default=[], choices=EXPORTS, help="export the model, validated, in these formats")
    add("--out", type=pathlib.Path, default=pathlib.Path("outputs/steerable"), help="folder of all files written")
    add("--smoke", action="store_true", help="a few steps, to see in seconds that everything works")
    args = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(SMOKE)))  # None: not given
    for name, few in SMOKE.items():
        given = getattr(args, name)
        if args.smoke and given is not None:
            option = "--" + name.replace("_", "-")
            parser.error(f"argument {option}: not allowed with --smoke, which sets it to {few}")
        if given is None:
            setattr(args, name, few if args.smoke else parser.get_default(name))
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        parser.error(f"argument --learning-rate: expected a number above zero, received {args.learning_rate}")
    if not 0 <= args.seed < 2**31 - 1:
        parser.error(f"argument --seed: expected an integer from 0 to 2**31 - 2, received {args.seed}")
    if args.images not in ("photos", "noise"):
        folder = pathlib.Path(args.data_dir) / args.images
        if not folder.is_dir():
            parser.error(f"argument --images: expected photos, noise or an existing folder, received {str(folder)!r}")
        args.images = str(folder)
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"argument --out: expected a folder, received the file {str(args.out)!r}")
    return args


def load_images(args):
    """Patches to train on, others to test with, and one picture `[1, height, width, 1]` for the figure.

    Test patches and picture come from photographs that are not trained on.
    """
    tests = min(256, args.patches)
    if args.images == "noise":
        train, test = (data.noise_patches(count, seed=args.seed + i) for i, count in enumerate((args.patches, tests)))
        return train, test, data.noise_patches(1, 128, seed=args.seed + 2)
    if args.images == "photos":
        images = data.load_photographs()
        held_out = 1
    else:
        images = data.load_folder(args.images)
        held_out = max(1, len(images) // 5)
        if len(images) == 1:
            print("One image only: training and test patches both come from it.")
    train = data.sample_patches(images[:-held_out] or images, args.patches, seed=args.seed)
    test = data.sample_patches(images[-held_out:], tests, seed=args.seed + 1)
    picture = images[-1]
    top, left = (max(0, extent - 512) // 2 for extent in picture.shape)
    picture = picture[top : top + 512, left : left + 512]
    return train, test, photographs.standardize(picture[None, ..., None])


def compiled(model, args):
    """`model`, compiled: Adam with the learning rate falling along a cosine, and a quick second moment."""
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, args.epochs * args.steps)
    model.compile(
        keras.optimizers.Adam(rate, beta_2=0.99, epsilon=1e-8),
        loss="mse",
        steps_per_execution=math.gcd(args.steps, 20),
    )
    return model


def agreement(learned, true):
    """Correlation and relative L2 error of filters `[count, height, width]`, `[count]` each."""
    learned, true = (np.reshape(filters, [len(filters), -1]).astype(np.float64) for filters in (learned, true))
    error = np.linalg.norm(learned - true, axis=1) / np.linalg.norm(true, axis=1)
    learned, true = (filters - filters.mean(axis=1, keepdims=True) for filters in (learned, true))
    norms = np.linalg.norm(learned, axis=1) * np.linalg.norm(true, axis=1)
    correlation = (learned * true).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return correlation, error


def filters_at(model, degrees):
    """Learned and true filters `[count, 9, 9]` at angles in degrees."""
    angles = np.deg2rad(degrees)
    return models.generated_filters(model, angles), data.steerable_filter(angles)


class FilterCorrelation(keras.callbacks.Callback):
    """Adds to the metrics of an epoch the worst correlation of learned and true filter at 360 angles."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worst_correlation"] = agreement(*filters_at(self.model, np.arange(360)))[0].min()


def squared_error(model, images, args):
    """Mean squared error per pixel on triples from `images`, and that of an image of zeros."""
    test = data.steerable_triples(images, batch_size=64, steps=max(1, len(images) // 16), seed=args.seed + 1)
    error = model.evaluate(test, verbose=0)
    zeros = np.mean([np.mean(np.square(results)) for _, results in test.as_numpy_iterator()])
    return float(error), float(zeros)


def draw(model, picture, path, degrees=139.2):
    """The figure: learned beside true filters, and a photograph that was filtered with both."""
    figure = visualize.new_figure(13, 8.6)
    figure.suptitle("A steerable filter, learned from images, angles and results", fontsize="x-large")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 0.85])
    learned, true = filters_at(model, DEGREES)
    titles = [f"{angle:g}°\ncorrelation {c:.5f}" for angle, c in zip(DEGREES, agreement(learned, true)[0])]
    visualize.show_filters(top, {"learned": learned, "true": true}, titles)

    angle = np.deg2rad([[degrees]]).astype(np.float32)
    result = model({"images": picture, "angles": angle}).numpy()
    target = data.filtered(picture, angle).numpy()
    difference = result - target
    times = 10 ** max(0, math.floor(math.log10(np.abs(target).max() / max(np.abs(difference).max(), 1e-9))))
    panel = {
        "image": picture,
        f"filtered at {degrees:g}°, learned": result,
        f"filtered at {degrees:g}°, true": target,
        f"{times} (learned - true)": times * difference,
    }
    visualize.show_images(bottom, {title: image[0, ..., 0] for title, image in panel.items()}, list(panel)[:1])
    figure.savefig(path, dpi=110)


def write_exports(model, args):
    """Exports `model`, which prints the reports; returns them by format."""
    reports = {}
    for kind in args.export:
        from keras_dynfilter import export

        report = export.export(model, str(args.out / EXPORTS[kind]), format=kind)
        reports[kind] = report.to_dict()
    return reports


def check_settings(args):
    """Writes down what the training depends on; a run that is taken up again must agree."""
    names = ("images", "raw_angles", "epochs", "steps", "batch_size", "patches", "learning_rate", "seed")
    settings = {name: getattr(args, name) for name in names}
    path = args.out / "settings.json"
    if args.resume and path.is_file():
        earlier = json.loads(path.read_text())
        for name, value in settings.items():
            if earlier.get(name) != value:
                option = "--" + name.replace("_", "-")
                sys.exit(f"--resume: expected {option} {earlier.get(name)}, as in {path}. Received: {value}")
    common.write_json(path, settings)
    return settings


def train_networks(args, images, test):
    """Trains the network, and its twin if that is wanted; the models and their figures by name."""
    total = args.epochs * args.steps

    def triples(start):
        return data.steerable_triples(images, args.batch_size, total, start, args.seed)

    networks = {"steerable": models.dfn_steerable}
    if args.baseline:
        networks["baseline"] = models.dfn_steerable_baseline
    trained, figures = {}, {}
    for name, network in networks.items():
        model = compiled(network(raw_angles=args.raw_angles), args)
        parameters = model.count_params()
        print(f"\nTraining {model.name}: {parameters:,} parameters, {total} steps of {args.batch_size} triples.")
        watch = [FilterCorrelation()] if name == "steerable" else []
        path = args.out / f"{name}.keras"
        trained[name], seconds = common.train(model, path, triples, args.epochs, args.steps, watch, args.resume)
        error, zeros = squared_error(trained[name], test, args)
        figures[name] = {
            "parameters": parameters,
            "test_mse": error,
            "test_mse_of_zeros": zeros,
            "training_seconds": round(seconds, 1),
        }
    return trained, figures


def filter_figures(model):
    """How far the filters of `model` are from the formula at 360 angles."""
    correlation, error = agreement(*filters_at(model, np.arange(360)))
    return {
        "correlation_min": float(correlation.min()),
        "correlation_mean": float(correlation.mean()),
        "relative_l2_error_max": float(error.max()),
        "relative_l2_error_mean": float(error.mean()),
        "target": TARGET,
        "target_reached": bool(correlation.min() > TARGET),
    }


def main(arguments=None):
    """Returns the exit status."""
    args = parse(arguments)
    began = time.perf_counter()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        settings = check_settings(args)
    except OSError as error:
        sys.exit(f"--out: expected a folder that can be written. Received: {args.out} ({error.strerror})")
    keras.utils.set_random_seed(args.seed)
    try:
        visualize.new_figure(1, 1)  # without matplotlib, say so now and not after the training
        images, test, picture = load_images(args)
    except (ImportError, ValueError) as error:
        sys.exit(f"{error}")
    trained, figures = train_networks(args, images, test)
    model = trained["steerable"]
    figures["steerable"].update(filter_figures(model))
    draw(model, picture, args.out / "steerable.png")
    run = {**common.circumstances(), "seed": args.seed, "settings": settings, "figures": figures}
    common.write_json(args.out / "results.json", run)  # already: an export that fails costs no figures
    run["exports"] = write_exports(model, args)
    run["seconds"] = round(time.perf_counter() - began, 1)
    common.write_json(args.out / "results.json", run)
    conclude(args, figures, run["seconds"])
    return 0 if figures["steerable"]["target_reached"] or shortened(args) else 1


def shortened(args):
    """Whether fewer steps were asked for than the target takes."""
    return args.epochs * args.steps < EPOCHS * STEPS


def conclude(args, figures, seconds):
    """Prints the figures, where the files are, and what to do next."""
    dfn = figures["steerable"]
    print(f"\nLearned and true filters at 360 angles, {dfn['training_seconds']:.0f} s of training:")
    print(f"  correlation        min {dfn['correlation_min']:.6f}   mean {dfn['correlation_mean']:.6f}")
    print(f"  relative L2 error  max {dfn['relative_l2_error_max']:.6f}   mean {dfn['relative_l2_error_mean']:.6f}")
    verdict = "reached" if dfn["target_reached"] else "MISSED"
    if shortened(args) and not dfn["target_reached"]:
        verdict = f"not reached, and not expected of {args.epochs * args.steps} steps instead of {EPOCHS * STEPS}"
    print(f"  target             min above {TARGET}: {verdict}")
    print("\nMean squared error per pixel of the results on test images:")
    print(f"  {'an image of zeros':<22} {dfn['test_mse_of_zeros']:.3e}")
    for name, figure in figures.items():
        print(f"  {name:<22} {figure['test_mse']:.3e}   {figure['parameters']:,} parameters")

    print(f"\nFigure   {args.out / 'steerable.png'}")
    print(f"Numbers  {args.out / 'results.json'}")
    print(f"Model    {args.out / 'steerable.keras'}")
    for kind in args.export:
        print(f"Export   {args.out / EXPORTS[kind]} ({kind}, validated)")
    print(f"All of it took {seconds:.0f} s.")
    script = "python examples/steerable_filters.py"
    if not args.export:
        model, file = args.out / "steerable.keras", args.out / EXPORTS["onnx"]
        print(f"Next: export it: python -m keras_dynfilter.export {model} --format onnx --out {file}")
    elif not args.baseline:
        print(f"Next: compare it with a network of fixed filters: {script} --baseline --out {args.out}_and_baseline")
    else:
        print(f"Next: learn it from images of your own: {script} --images FOLDER")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command with --resume continues after the last epoch that was finished.")
