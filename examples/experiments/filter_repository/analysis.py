# SPDX-License-Identifier: Apache-2.0
"""Shows classes in the generated filters: figure 5 and the swap test of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.analysis outputs/repository_mnist/runs/encoder20_seed0.keras
    python -m examples.experiments.filter_repository.analysis outputs/repository_cifar10/runs/generated_seed0.keras

Analyzes a network that mnist.py or cifar10.py has trained. Draws the t-SNE of the coefficients, of the generated
filters and of the outputs of each generated convolution for test images, coloured by class. In the paper, classes share
filters of the first layer and form clusters in the second. Also computes how well classes are separated before t-SNE:
the accuracy of the five nearest neighbours, in five folds, and its difference from the first to the last layer. At the
end, computes the accuracy on all test images, with their own filters and with the filters of other images.

Vectors of more than 1,000 values are projected at random to 500 values, which changes distances by a few percent.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.4.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import environment, files, options, run, statistics
from examples.experiments.core import markdown as md
from examples.experiments.data.rendered_digits import render_digits
from examples.experiments.filter_repository import runs
from keras_dynfilter import export, inspection, models
from keras_dynfilter.export import model_loading

OUT = pathlib.Path("outputs/repository_analysis")
SMOKE = {"images": 60, "perplexity": 5.0}
KINDS = ("coefficients", "filters", "maps")
BATCH = 50
LONG, PROJECTED = 1_000, 500
NEIGHBOURS = FOLDS = 5
PAIRINGS = 3  # number of random pairings of images with the filters of other images


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_parser(__doc__)
    parser.usage = "%(prog)s [FILE.keras] [options]"
    add = parser.add_argument
    add("file", nargs="?", type=pathlib.Path, metavar="FILE.keras", help="the network; --smoke uses an untrained one")
    add("--images", type=options.positive_int, default=1_000, help="number of test images for t-SNE")
    add("--perplexity", type=options.positive_float, default=30.0, help="perplexity of t-SNE")
    add("--seed", type=options.seed, default=0, help="seed of t-SNE and of the random projection")
    sources = ("auto", "mnist", "rendered", "cifar10", "generated")
    add("--source", choices=sources, default="auto", help="source of the images that the network was trained on")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} mnist/ and cifar10/")
    text = "folder of all files written; by default a folder inside %(default)s with the name of FILE"
    add("--out", type=pathlib.Path, default=OUT, metavar="DIR", help=text)
    options.add_smoke(add)
    args = options.parse(parser, arguments, SMOKE)
    if bool(args.file) == args.smoke:
        parser.error("expected either FILE.keras or --smoke")
    if args.out == OUT:
        args.out = OUT / (args.file.stem if args.file else "smoke")
    if args.perplexity >= args.images:
        parser.error(f"argument --perplexity: expected less than the number of images, {args.images}")
    return args


class Loaded(NamedTuple):
    """Holds a network, and test images and labels."""

    network: keras.Model
    images: np.ndarray
    labels: np.ndarray


def load(args: argparse.Namespace) -> Loaded:
    """Loads the network and the test images; sets `args.source` to their source."""
    if args.smoke:
        args.source = "rendered"
        images, labels = render_digits(args.images)[..., None], np.arange(args.images) % 10
        return Loaded(models.repository_mnist(5), images, labels)
    if not args.file.is_file():
        raise FileNotFoundError(f"Expected FILE.keras to be a file. Received: {args.file}")
    try:
        network = model_loading.load_model(args.file)
    except export.ExportError as error:
        raise ValueError(str(error)) from error
    shape = network.input_shape[1:]
    if shape == (28, 28, 1):
        *images, args.source = data.load_mnist("test", args.data_dir, args.source)
        return Loaded(network, *images)
    if shape == (32, 32, 3):
        *images, args.source = data.load_cifar10("test", args.data_dir, args.source)
        return Loaded(network, *images)
    raise ValueError(f"Expected a network of mnist.py or cifar10.py. Received: inputs of {shape}")


def check_images(labels: np.ndarray, perplexity: float) -> None:
    """Raises a ValueError if there are too few images for t-SNE or for the folds."""
    if perplexity >= len(labels):
        raise ValueError(
            f"Expected --perplexity to be below the number of images, {len(labels)}. Received: {perplexity:g}"
        )
    most = int(np.unique(labels, return_counts=True)[1].max())
    if most < FOLDS or len(labels) < 2 * FOLDS:
        expected = f"Expected --images to give {2 * FOLDS} images or more, and {FOLDS} or more of a class"
        raise ValueError(f"{expected}. Received: {len(labels)}, and {most} of a class at most")


def layer_vectors(network: keras.Model, images: np.ndarray, seed: int = 0):
    """Returns coefficients, filters and maps of each generated layer, `[count, values]`; long vectors are projected."""
    from sklearn.random_projection import SparseRandomProjection

    parts, projections = {}, {}
    for first in range(0, len(images), BATCH):
        batch = data.normalized(images[first : first + BATCH], runs.UNCHANGED)
        for layer, arrays in inspection.inspect_repository(network, batch).items():
            for kind, values in arrays.items():
                values = values.reshape(len(values), -1)
                if values.shape[1] > LONG:
                    if (layer, kind) not in projections:
                        projections[layer, kind] = SparseRandomProjection(PROJECTED, random_state=seed).fit(values[:1])
                    values = projections[layer, kind].transform(values)
                parts.setdefault(layer, {}).setdefault(kind, []).append(values)
    return {layer: {kind: np.concatenate(parts[layer][kind]) for kind in KINDS} for layer in parts}


def separation(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the accuracy in percent of a classifier by the five nearest neighbours, in five folds."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    return 100 * float(cross_val_score(KNeighborsClassifier(NEIGHBOURS), values, labels, cv=FOLDS).mean())


def separation_gain(separations):
    """Returns by how many points the last layer separates classes better than the first, by kind."""
    layers = list(separations.values())
    return {kind: layers[-1][kind] - layers[0][kind] for kind in layers[0]} if len(layers) > 1 else {}


def embed(values: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Embeds vectors in the plane by t-SNE: `[count, 2]`."""
    from sklearn.manifold import TSNE

    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(values)


def draw(embedded, separations, labels: np.ndarray):
    """Draws a row for each layer and a column for each kind; colours are classes."""
    drawn = inspection.new_figure(11, 3.6 * len(embedded))
    for row, (layer, kinds) in zip(drawn.subplots(len(embedded), len(KINDS), squeeze=False), embedded.items()):
        for axis, (kind, places) in zip(row, kinds.items()):
            for label in np.unique(labels):
                axis.plot(*places[labels == label].T, ".", color=f"C{label}", markersize=3, label=str(label))
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{layer}: {kind}, {separations[layer][kind]:.0f} % by neighbours", fontsize=9)
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside right center", markerscale=4)
    return drawn


def analyze(args: argparse.Namespace, loaded: Loaded):
    """Returns the separation of the classes and the t-SNE, by layer and kind."""
    import threadpoolctl

    labels = loaded.labels[: args.images]
    separations, embedded = {}, {}
    for layer, kinds in layer_vectors(loaded.network, loaded.images[: args.images], args.seed).items():
        # If other processes use the cores, several threads wait for each other for minutes.
        with threadpoolctl.threadpool_limits(1):
            separations[layer] = {kind: separation(values, labels) for kind, values in kinds.items()}
            embedded[layer] = {kind: embed(values, args.perplexity, args.seed) for kind, values in kinds.items()}
        percents = ", ".join(f"{kind} {percent:.1f} %" for kind, percent in separations[layer].items())
        print(f"{layer}, accuracy of nearest neighbours: {percents}", flush=True)
    return separations, embedded


def evaluate(args: argparse.Namespace, loaded: Loaded) -> tuple[float, dict[str, Any]]:
    """Returns the accuracy in percent on all test images, and its summary with the filters of other images."""
    network, images, labels = loaded
    swapped = [runs.swapped_accuracy(network, images, labels, seed) for seed in range(PAIRINGS)]
    own, swapped = runs.accuracy(network, images, labels), statistics.summarize_seeds(swapped)
    print(f"{len(images)} test images, {args.source}: {own:.2f} %", flush=True)
    print(f"with the filters of other images: {md.mean_and_deviation(swapped)} %", flush=True)
    return own, swapped


def save_figure(args: argparse.Namespace, embedded, separations, labels: np.ndarray) -> list[str]:
    """Saves the figure, and the positions that it shows. Returns the names of the files."""
    names = run.save_figures(args, {"tsne.png": draw(embedded, separations, labels)})
    arrays = {f"{layer}_{kind}": places for layer, kinds in embedded.items() for kind, places in kinds.items()}
    with files.written_whole(args.out / "tsne.npz", ".npz") as part:
        np.savez(part, labels=labels, **arrays)
    return [*names, "tsne.npz"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, evaluates, analyzes and draws. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        import sklearn.manifold  # noqa: F401, a missing package ends the script early
        import threadpoolctl  # noqa: F401

        loaded = load(args)
        labels = loaded.labels[: args.images]
        check_images(labels, args.perplexity)
        with run.writing_to_out(args):
            args.out.mkdir(parents=True, exist_ok=True)
        accuracy, swapped = evaluate(args, loaded)
    separations, embedded = analyze(args, loaded)
    gains = separation_gain(separations)
    if gains:
        parts = ", ".join(f"{kind} {gain:+.1f}" for kind, gain in gains.items())
        print(f"Difference from the first to the last layer, in points: {parts}", flush=True)
    names = save_figure(args, embedded, separations, labels)
    content = {
        "file": args.file and str(args.file),
        "settings": {name: getattr(args, name) for name in ("images", "perplexity", "seed", "source")},
        "test_images": len(loaded.images),
        "accuracy": accuracy,
        "swapped": swapped,
        "accuracy_of_neighbours": separations,
        "gain_of_last_layer": gains,
    }
    files.write_json(args.out / "results.json", {**environment.describe(), **content})
    print(f"Files in {args.out}: {', '.join(names)}, results.json")
    return 0


if __name__ == "__main__":
    run.run_script(main)
