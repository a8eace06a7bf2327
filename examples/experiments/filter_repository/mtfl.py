# SPDX-License-Identifier: Apache-2.0
"""Locates facial landmarks with generated filters: figure 3 and table 3 of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.mtfl --processes 2
    python -m examples.experiments.filter_repository.mtfl --full --processes 2

Trains networks of 32 and of 64 channels to locate five landmarks in three settings: on aligned faces (D-Align), on the
same faces rotated by a random angle of up to 45 degrees (D-Rot), and on rotated faces with filters generated from the
features of an autoencoder (D-Rot-FG). Writes mean and largest errors in percent of the inter-ocular distance, and the
errors of the mean landmarks of the training faces. Judges the claims of the paper, which one seed leaves undecided:
rotated faces are harder, generated filters compensate for that, and the smaller network gains more. Draws the errors,
and faces with the landmarks found.

The faces are the training part of MTFL. A tenth of the faces, the same in all settings, is for tests. The similarity
transform that fits the five landmarks best brings faces to the same place, size and direction, cropped to 64 x 64.

The default is five epochs, which take an hour on two CPU cores; `--full` is 40 epochs, which take a night. Both have
one seed, and each further seed (`--seeds 0 1 2`) takes as long. The paper reports neither loss, optimizer, batch size
nor epochs. This script uses the softmax cross-entropy over the positions of a heat map, with a Gaussian around the
landmark as the target, plus the loss of the reconstruction, and Adam with a cosine. The position of a landmark is the
soft-argmax near the highest score of its heat map.

A run is a variant with a seed. Finished runs are kept and interrupted runs continue, so the same command continues the
sweep at any time. Processes with the same `--out` share the sweep.

If MTFL is not found, faces are drawn: docs/guide/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.2.
"""

import argparse
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import options, run, sweep
from examples.experiments.filter_repository import landmarks, mtfl_tables, runs
from keras_dynfilter import models

RECIPES = {"reduced": {"epochs": 5, "seeds": [0]}, "full": {"epochs": 40, "seeds": [0]}}
SMOKE = {
    "only": ["model32_rotated", "model32_rotated_generated"],
    "seeds": [0],
    "epochs": 2,
    "batch_size": 4,
    "train_images": 8,
    "test_images": 4,
    "source": "generated",
}
SIZE = 64
TESTED = 10  # one of so many faces is for tests
SHOWN = 8  # faces in the figure


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    sweep.add_options(parser, mtfl_tables.VARIANTS, "outputs/repository_mtfl")
    parser.set_defaults(only=[*reversed(mtfl_tables.VARIANTS)])  # long runs first, for several processes
    runs.add_options(parser, batch_size=32)
    add = parser.add_argument
    add("--max-angle", type=angle, default=45.0, metavar="X", help="largest rotation of D-Rot, in degrees")
    text = "standard deviation of the target around a landmark, in pixels"
    add("--sigma", type=options.positive_float, default=1.5, help=text)
    add("--source", choices=("auto", "mtfl", "generated"), default="auto", help="source of the faces")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} mtfl_faces/")
    return sweep.parse(parser, arguments, SMOKE, RECIPES)


def angle(text: str) -> float:
    """Argument type: degrees above zero, half a turn at most."""
    value = options.positive_float(text)
    if value > 180:
        raise argparse.ArgumentTypeError(f"expected 180 degrees at most, received {text!r}")
    return value


def load(args: argparse.Namespace) -> tuple[tuple, tuple]:
    """Returns `(train, test)`, each images `[2, count, 64, 64, 3]` and landmarks, of aligned and of rotated faces."""
    images, points, args.source = data.load_mtfl("train", args.data_dir, args.source)
    if len(images) < TESTED:
        raise ValueError(f"Expected {TESTED} faces or more: one of {TESTED} is tested on. Received: {len(images)}")
    landmarks.interocular_distances(points)  # refuses faces whose errors would be infinite
    rng = np.random.default_rng(0)  # parts and angles do not depend on the seeds of the runs
    order, angles = rng.permutation(len(images)), rng.uniform(-args.max_angle, args.max_angle, len(images))
    cut = len(order) - len(order) // TESTED
    parts = []
    for chosen in (order[:cut][: args.train_images], order[cut:][: args.test_images]):
        faces = [images[index] for index in chosen], points[chosen], SIZE
        sets = data.align_faces(*faces), data.align_faces(*faces, angles=angles[chosen])
        parts.append(tuple(np.stack(arrays) for arrays in zip(*sets)))
    return tuple(parts)


def build(variant: str) -> keras.Model:
    """Builds the network of a variant."""
    if mtfl_tables.VARIANTS[variant].generated:
        return models.repository_mtfl(mtfl_tables.VARIANTS[variant].filters)
    return models.repository_mtfl_baseline(mtfl_tables.VARIANTS[variant].filters)


def locate_landmarks(network: keras.Model, images: np.ndarray, batch_size: int = 50) -> np.ndarray:
    """Returns the landmarks that a network locates in images, `[count, 5, 2]`, in pixels."""
    located = []
    for first in range(0, len(images), batch_size):
        outputs = network(data.normalized(images[first : first + batch_size], runs.UNCHANGED), training=False)
        located.append(landmarks.soft_argmax(outputs["heatmaps"] if isinstance(outputs, dict) else outputs))
    return np.concatenate(located)


def train_run(experiment: run.Experiment, variant: str, seed: int, train: tuple, test: tuple) -> dict[str, Any]:
    """Trains a variant from a seed, or continues to train it. Returns the description of the run."""
    args, name, chosen = experiment.args, sweep.run_name(variant, seed), mtfl_tables.VARIANTS[variant]
    (images, points), (test_images, test_points) = (
        [array[int(chosen.rotated)] for array in part] for part in (train, test)
    )
    numbers = np.arange(len(images))

    def batches(first, end):
        unaugmented = dict(pad=0, flip=False, statistics=runs.UNCHANGED)
        numbered = data.image_batches(images, numbers, args.batch_size, end, first, seed, **unaugmented)
        all_points = tf.constant(points)
        return numbered.map(
            lambda faces, chosen: (faces, landmarks.target_heatmaps(tf.gather(all_points, chosen), SIZE, args.sigma))
        )

    def evaluate(network):
        return {"test_error": float(landmarks.errors(locate_landmarks(network, test_images), test_points).mean())}

    trained = runs.train_network(
        experiment,
        name,
        functools.partial(build, variant),
        chosen.generated,
        landmarks.position_crossentropy,
        batches,
        len(images),
        seed,
        evaluate,
        output="heatmaps",
    )
    located = locate_landmarks(trained.network, test_images)
    errors = landmarks.errors(located, test_points)
    print(
        f"{name}: {errors.mean():.2f} %, at most {errors.max():.1f} %, in {trained.seconds / 60:.1f} minutes",
        flush=True,
    )
    worst = int(errors.max(axis=1).argmax())
    shown = [*np.unique(np.linspace(0, len(located) - 1, SHOWN).round().astype(int)).tolist(), worst]
    return {
        "variant": variant,
        "seed": seed,
        "errors": landmarks.describe(errors),
        "mean_landmark_errors": landmarks.describe(landmarks.errors(points.mean(axis=0), test_points)),
        "shown": {"faces": shown, "landmarks": located[shown].round(2).tolist()},  # the last one is the worst
        **run.training_figures(trained),
        "settings": experiment.settings,
    }


def report(finished: Iterable[dict[str, Any]], test_data: tuple):
    """Returns the content of the results, the tables, and the figures of finished runs."""
    summary = mtfl_tables.summarize(finished)
    claims = mtfl_tables.check_claims(summary)
    content = {"test_faces": test_data[0].shape[1], "variants": summary, "claims": claims}
    figures = {
        "errors.png": mtfl_tables.errors_figure(summary),
        "faces.png": mtfl_tables.faces_figure(finished, *test_data),
    }
    return content, mtfl_tables.markdown(summary, claims), figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all runs and reports on them. Returns the exit status."""
    return sweep.main(parse(arguments), arguments, __spec__.name, load, train_run, report, free=["recipe"])


if __name__ == "__main__":
    sweep.run_script(main)
