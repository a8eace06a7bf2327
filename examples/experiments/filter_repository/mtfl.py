# SPDX-License-Identifier: Apache-2.0
"""Facial landmarks with generated filters: figure 3 and table 3 of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.mtfl --processes 2
    python -m examples.experiments.filter_repository.mtfl --full --processes 2

Trains networks of 32 and of 64 channels that find five landmarks, on faces that are aligned (D-Align), on the same
faces turned by a random angle within 45 degrees (D-Rot), and on these with filters generated from the features of an
autoencoder (D-Rot-FG). Writes the mean and the largest error in percent of the distance of the eyes, beside what the
mean landmarks of the training faces would give, and says which of the paper's claims hold: turned faces are harder,
generated filters make up for it, and the smaller network gains more; with one seed, all of them are undecided. Draws
the errors, and faces with the landmarks found.

The faces are those of MTFL's training part, a tenth of them to test on, the same in all sets. They are brought to one
place, size and direction by the similarity transform that fits the five landmarks best, and cropped to 64 x 64.

The default is five epochs, an hour of two CPU cores; `--full` has 40, a night. Both have one seed; `--seeds 0 1 2` adds
others, which take as long each. The paper gives neither loss, optimizer, batch size nor epochs: softmax cross-entropy
over the positions of a map, with a Gaussian around the landmark for the target, plus the reconstruction; Adam with a
cosine. A landmark is read off its map near the highest score.

A variant and a seed make a cell of the grid. Finished cells are kept, and one that was interrupted continues where it
was, so the same command goes on whenever it is given. Several processes share the grid if they have the same `--out`.

Where there is no MTFL, faces are drawn: docs/guide/data.md.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.2.
"""

import argparse
import functools

import numpy as np
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import common, harness, sweep
from examples.experiments.filter_repository import landmarks, mtfl_tables, runs
from keras_dynfilter import models

RECIPES = {"reduced": {"epochs": 5, "seeds": [0]}, "full": {"epochs": 40, "seeds": [0]}}
SMOKE = {
    "only": ["m32_rot", "m32_rot_fg"],
    "seeds": [0],
    "epochs": 2,
    "batch_size": 4,
    "train_images": 8,
    "test_images": 4,
    "source": "generated",
}
SIZE = 64
TESTED = 10  # one face of so many is tested on
SHOWN = 8  # faces in the figure


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    sweep.add_options(parser, mtfl_tables.VARIANTS, "outputs/repository_mtfl")
    parser.set_defaults(only=[*reversed(mtfl_tables.VARIANTS)])  # long trainings first, for processes side by side
    runs.add_options(parser, batch_size=32)
    add = parser.add_argument
    add("--max-angle", type=angle, default=45.0, metavar="X", help="of D-Rot, degrees")
    add("--sigma", type=common.positive_float, default=1.5, help="of the target around a landmark, pixels")
    add("--source", choices=("auto", "mtfl", "generated"), default="auto", help="of the faces")
    add("--data-dir", metavar="DIR", help="folder with mtfl_faces/")
    return sweep.parse(parser, arguments, SMOKE, RECIPES)


def angle(text):
    """Argument type: degrees above zero, half a turn at most."""
    value = common.positive_float(text)
    if value > 180:
        raise argparse.ArgumentTypeError(f"expected 180 degrees at most, received {text!r}")
    return value


def load(args):
    """`(train, test)`, each images `[2, count, 64, 64, 3]`, and landmarks `[2, count, 5, 2]`: aligned; turned."""
    images, points, args.source = data.load_mtfl("train", args.data_dir, args.source, return_source=True)
    if len(images) < TESTED:
        raise ValueError(f"Expected {TESTED} faces or more: one of {TESTED} is tested on. Received: {len(images)}")
    landmarks.eye_distances(points)  # errors are measured by them
    rng = np.random.default_rng(0)  # neither the parts nor the angles depend on the seeds of the trainings
    order, angles = rng.permutation(len(images)), rng.uniform(-args.max_angle, args.max_angle, len(images))
    cut = len(order) - len(order) // TESTED
    parts = []
    for chosen in (order[:cut][: args.train_images], order[cut:][: args.test_images]):
        faces = [images[index] for index in chosen], points[chosen], SIZE
        sets = data.align_faces(*faces), data.align_faces(*faces, angles=angles[chosen])
        parts.append(tuple(np.stack(arrays) for arrays in zip(*sets)))
    return tuple(parts)


def build(variant):
    if mtfl_tables.VARIANTS[variant].generated:
        return models.repository_mtfl(mtfl_tables.VARIANTS[variant].filters)
    return models.repository_mtfl_baseline(mtfl_tables.VARIANTS[variant].filters)


def find(network, images, batch_size=50):
    """The landmarks that a network finds in images, `[count, 5, 2]`, in pixels."""
    found = []
    for first in range(0, len(images), batch_size):
        maps = network(data.normalized(images[first : first + batch_size], runs.UNCHANGED), training=False)
        found.append(landmarks.read_maps(maps["heatmaps"] if isinstance(maps, dict) else maps))
    return np.concatenate(found)


def train_cell(run, variant, seed, train, test):
    """Trains a variant from a seed, or what is left of it; returns what is to be known of it."""
    args, name, chosen = run.args, sweep.cell_name(variant, seed), mtfl_tables.VARIANTS[variant]
    (images, points), (test_images, test_points) = (
        [array[int(chosen.turned)] for array in part] for part in (train, test)
    )
    numbers = np.arange(len(images))

    def batches(first, end):
        how = dict(pad=0, flip=False, statistics=runs.UNCHANGED)
        made = data.image_batches(images, numbers, args.batch_size, end, first, seed, **how)
        known = tf.constant(points)
        return made.map(lambda faces, which: (faces, landmarks.make_maps(tf.gather(known, which), SIZE, args.sigma)))

    def evaluate(network):
        return {"test_error": float(landmarks.errors(find(network, test_images), test_points).mean())}

    trained = runs.train_network(
        run,
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
    found = find(trained.network, test_images)
    values = landmarks.errors(found, test_points)
    print(
        f"{name}: {values.mean():.2f} %, at most {values.max():.1f} %, in {trained.seconds / 60:.1f} minutes",
        flush=True,
    )
    worst = int(values.max(axis=1).argmax())
    shown = [*np.unique(np.linspace(0, len(found) - 1, SHOWN).round().astype(int)).tolist(), worst]
    return {
        "variant": variant,
        "seed": seed,
        "errors": landmarks.describe(values),
        "errors_of_the_mean": landmarks.describe(landmarks.errors(points.mean(axis=0), test_points)),
        "shown": {"faces": shown, "landmarks": found[shown].round(2).tolist()},  # the last one is the worst
        **harness.training_figures(trained),
        "settings": run.settings,
    }


def report(finished, tested):
    """What goes into the results, tables and figures, of finished cells."""
    summary = mtfl_tables.summarize(finished)
    claims = mtfl_tables.check_claims(summary)
    content = {"test_faces": tested[0].shape[1], "variants": summary, "claims": claims}
    figures = {
        "errors.png": mtfl_tables.errors_figure(summary),
        "faces.png": mtfl_tables.faces_figure(finished, *tested),
    }
    return content, mtfl_tables.markdown(summary, claims), figures


def main(arguments=None):
    """Returns the exit status."""
    return sweep.run(parse(arguments), arguments, __file__, load, train_cell, report, free=["recipe"])


if __name__ == "__main__":
    sweep.run_script(main)
