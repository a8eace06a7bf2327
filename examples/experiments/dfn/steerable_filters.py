# SPDX-License-Identifier: Apache-2.0
"""Learns a steerable filter from examples of what it does (Dynamic Filter Networks, section 4.1).

    python -m examples.experiments.dfn.steerable_filters

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
import functools
import math
import pathlib
import time

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import common, experiment, harness, training
from examples.experiments.data import photographs
from keras_dynfilter import inspection, models

DEGREES = (0.0, 90.0, 139.2, 180.0, 242.9)
TARGET = 0.999
EPOCHS, STEPS = 8, 500  # what the target takes
SMOKE = {"epochs": 2, "steps": 20, "batch_size": 8, "patches": 64}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    harness.add_options(parser, "outputs/steerable")
    add = parser.add_argument
    add("--images", default="photos", metavar="KIND", help="photos (of scikit-image), noise, or a folder of images")
    add("--data-dir", default=".", metavar="DIR", help="where a relative image folder is looked for")
    add("--raw-angles", action="store_true", help="feed radians, not angle/pi - 1 (learns more slowly)")
    add("--epochs", type=common.positive_int, default=EPOCHS, help="epochs, after each of which the model is saved")
    add("--steps", type=common.positive_int, default=STEPS, help="training steps of an epoch")
    add("--batch-size", type=common.positive_int, default=32, help="triples of a step")
    add("--patches", type=common.positive_int, default=2048, help="number of 64 x 64 patches to draw triples from")
    add("--learning-rate", type=common.positive_float, default=0.01, help="of Adam; falls to zero along a cosine")
    add("--baseline", action="store_true", help="train the twin too, whose filters do not depend on the angle")
    args = harness.parse(parser, arguments, SMOKE)
    if args.images not in ("photos", "noise"):
        folder = pathlib.Path(args.data_dir) / args.images
        if not folder.is_dir():
            parser.error(f"argument --images: expected photos, noise or an existing folder, received {str(folder)!r}")
        args.images = str(folder)
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
    return inspection.generated_filters(model, angles), data.steerable_filter(angles)


class FilterCorrelation(keras.callbacks.Callback):
    """Adds to the metrics of an epoch the worst correlation of learned and true filter at 360 angles."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worst_correlation"] = agreement(*filters_at(self.model.network, np.arange(360)))[0].min()


def squared_error(model, images, args):
    """Mean squared error per pixel on triples from `images`, and that of an image of zeros."""
    test = data.steerable_triples(images, batch_size=64, steps=max(1, len(images) // 16), seed=args.seed + 1)
    errors = [
        [np.mean(np.square(results - guess)) for guess in (model.predict_on_batch(inputs), 0)]
        for inputs, results in test.as_numpy_iterator()
    ]
    error, zeros = np.mean(errors, axis=0)
    return float(error), float(zeros)


def draw(model, picture, path, degrees=139.2):
    """The figure: learned beside true filters, and a photograph that was filtered with both."""
    figure = inspection.new_figure(13, 8.6)
    figure.suptitle("A steerable filter, learned from images, angles and results", fontsize="x-large")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 0.85])
    learned, true = filters_at(model, DEGREES)
    titles = [f"{angle:g}°\ncorrelation {c:.5f}" for angle, c in zip(DEGREES, agreement(learned, true)[0])]
    inspection.show_filters(top, {"learned": learned, "true": true}, titles)

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
    inspection.show_images(bottom, {title: image[0, ..., 0] for title, image in panel.items()}, list(panel)[:1])
    figure.savefig(path, dpi=110)


def train_networks(run, images, test):
    """Trains the network, and its twin if that is wanted; the models and their figures by name."""
    args = run.args
    total = args.epochs * args.steps

    def triples(start, end):
        return data.steerable_triples(images, args.batch_size, end, start, args.seed)

    networks = {"steerable": models.dfn_steerable}
    if args.baseline:
        networks["baseline"] = models.dfn_steerable_baseline
    trained, figures = {}, {}
    for name, network in networks.items():
        print(f"\nTraining {name}: {total} steps of {args.batch_size} triples.")
        done = training.train(
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
            settings=run.settings,
        )
        trained[name] = done.network
        error, zeros = squared_error(done.network, test, args)
        figures[name] = {
            "parameters": done.network.count_params(),
            "test_mse": error,
            "test_mse_of_zeros": zeros,
            "training_seconds": round(done.seconds, 1),
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
    with experiment.preparing(args):
        images, test, picture = load_images(args)
    run = harness.begin(args, data=common.fingerprint({"patches": images}))
    trained, figures = train_networks(run, images, test)
    model = trained["steerable"]
    figures["steerable"].update(filter_figures(model))
    draw(model, picture, args.out / "steerable.png")
    harness.write_results(run, {"figures": figures, "exports": {}})  # already: a failing export costs no figures
    exports = experiment.write_exports(run, "steerable", model)
    harness.write_results(run, {"figures": figures, "exports": exports})
    conclude(args, figures, time.perf_counter() - run.began)
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
    experiment.print_exports(args, "steerable")
    print(f"All of it took {seconds:.0f} s.")
    script = "python -m examples.experiments.dfn.steerable_filters"
    if not args.export:
        model = args.out / "steerable"
        print(f"Next: export it: python -m keras_dynfilter.export {model}.keras --format onnx --out {model}.onnx")
    elif not args.baseline:
        print(f"Next: compare it with a network of fixed filters: {script} --baseline --out {args.out}_and_baseline")
    else:
        print(f"Next: learn it from images of your own: {script} --images FOLDER")


if __name__ == "__main__":
    experiment.run_script(main)
