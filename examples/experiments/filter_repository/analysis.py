# SPDX-License-Identifier: Apache-2.0
"""What generated filters know of the classes: figure 5 and the swap test of "Learning to Generate Filters ...".

    python -m examples.experiments.filter_repository.analysis outputs/repository_mnist/cells/n20_seed0.keras
    python -m examples.experiments.filter_repository.analysis outputs/repository_cifar10/cells/generated_seed0.keras

Of a network that repository_mnist.py or repository_cifar10.py has trained: t-SNE of the coefficients, of the generated
filters and of the maps of each generated convolution, for test images, coloured by class. The paper sees filters of the
first layer that classes share, and clusters of classes in the second. How far classes are apart, before t-SNE, is also
given as a number: the accuracy of the five nearest neighbours, in five folds, and what the last layer has more of it
than the first. Then the accuracy on all test images with their own filters and with those of other images.

Vectors of more than 1,000 values are projected at random to 500 before, which changes distances by some percent.

Paper: https://arxiv.org/abs/1812.01894 (Shen and Liu, 2018), section 4.4.
"""

import argparse
import pathlib

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import common, experiment, files, harness, statistics
from examples.experiments.data.rendered_digits import render_digits
from examples.experiments.filter_repository import runs
from keras_dynfilter import inspection, models

OUT = pathlib.Path("outputs/repository_analysis")
SMOKE = {"images": 60, "perplexity": 5.0}
KINDS = ("coefficients", "filters", "maps")
BATCH = 50
LONG, PROJECTED = 1_000, 500
NEIGHBOURS = FOLDS = 5
PAIRINGS = 3  # of images with the filters of others


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("file", nargs="?", type=pathlib.Path, metavar="FILE.keras", help="the network; --smoke takes an untrained one")
    add("--images", type=common.positive_int, default=1_000, help="test images for t-SNE")
    add("--perplexity", type=common.positive_float, default=30.0, help="of t-SNE")
    add("--seed", type=common.seed, default=0, help="of t-SNE, and of the projection before it")
    sources = ("auto", "mnist", "rendered", "cifar10", "generated")
    add("--source", choices=sources, default="auto", help="of the images, those that the network was trained on")
    add("--data-dir", metavar="DIR", help="folder with mnist/ and cifar10/")
    add("--out", type=pathlib.Path, default=OUT, help="for all files written; by default in a folder named as the file")
    add("--smoke", action="store_true", help="a few images, to see in seconds that everything works")
    args = harness.parse(parser, arguments, SMOKE)
    if bool(args.file) == args.smoke:
        parser.error("expected either FILE.keras or --smoke")
    if args.out == OUT:
        args.out = OUT / (args.file.stem if args.file else "smoke")
    if args.perplexity >= args.images:
        parser.error(f"argument --perplexity: expected less than the number of images, {args.images}")
    return args


def load(args):
    """The network, and test images and labels; `args.source` says then what was found."""
    if args.smoke:
        args.source = "rendered"
        return models.repository_mnist(5), render_digits(args.images)[..., None], np.arange(args.images) % 10
    if not args.file.is_file():
        raise FileNotFoundError(f"Expected FILE.keras to be a file. Received: {args.file}")
    network = keras.models.load_model(args.file, compile=False)
    shape = network.input_shape[1:]
    if shape == (28, 28, 1):
        *images, args.source = data.load_mnist("test", args.data_dir, args.source, return_source=True)
        return network, *images
    if shape == (32, 32, 3):
        *images, args.source = data.load_cifar10("test", args.data_dir, args.source, return_source=True)
        return network, *images
    raise ValueError(f"Expected a network of repository_mnist.py or repository_cifar10.py. Received: inputs of {shape}")


def check_images(labels, perplexity):
    """Raises a ValueError where there are too few images for t-SNE or for the folds."""
    if perplexity >= len(labels):
        raise ValueError(
            f"Expected --perplexity to be below the number of images, {len(labels)}. Received: {perplexity:g}"
        )
    most = int(np.unique(labels, return_counts=True)[1].max())
    if most < FOLDS or len(labels) < 2 * FOLDS:
        expected = f"Expected --images to give {2 * FOLDS} images or more, and {FOLDS} or more of a class"
        raise ValueError(f"{expected}. Received: {len(labels)}, and {most} of a class at most")


def inside(network, images, seed=0):
    """Coefficients, filters and maps of each generated layer, `[count, values]` each, projected where they are long."""
    from sklearn.random_projection import SparseRandomProjection

    parts, projections = {}, {}
    for first in range(0, len(images), BATCH):
        batch = data.normalized(images[first : first + BATCH], runs.UNCHANGED)
        for layer, found in inspection.inspect_repository(network, batch).items():
            for kind, values in found.items():
                values = values.reshape(len(values), -1)
                if values.shape[1] > LONG:
                    if (layer, kind) not in projections:
                        projections[layer, kind] = SparseRandomProjection(PROJECTED, random_state=seed).fit(values[:1])
                    values = projections[layer, kind].transform(values)
                parts.setdefault(layer, {}).setdefault(kind, []).append(values)
    return {layer: {kind: np.concatenate(parts[layer][kind]) for kind in KINDS} for layer in parts}


def separation(values, labels):
    """Accuracy in percent of the five nearest neighbours, of five folds."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    return 100 * float(cross_val_score(KNeighborsClassifier(NEIGHBOURS), values, labels, cv=FOLDS).mean())


def gained(separations):
    """By how many points the last layer tells classes apart better than the first, by kind; nothing of one layer."""
    layers = list(separations.values())
    return {kind: layers[-1][kind] - layers[0][kind] for kind in layers[0]} if len(layers) > 1 else {}


def embed(values, perplexity, seed):
    """t-SNE, `[count, 2]`."""
    from sklearn.manifold import TSNE

    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(values)


def draw(embedded, separations, labels):
    """A row for each layer, a column for each kind; colours are classes."""
    drawn = inspection.new_figure(11, 3.6 * len(embedded))
    for row, (layer, kinds) in zip(drawn.subplots(len(embedded), len(KINDS), squeeze=False), embedded.items()):
        for axis, (kind, places) in zip(row, kinds.items()):
            for label in np.unique(labels):
                axis.plot(*places[labels == label].T, ".", color=f"C{label}", markersize=3, label=str(label))
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{layer}: {kind}, {separations[layer][kind]:.0f} % by neighbours", fontsize=9)
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside right center", markerscale=4)
    return drawn


def main(arguments=None):
    """Returns the exit status."""
    args = parse(arguments)
    with experiment.preparing(args):
        import sklearn.manifold  # noqa: F401, before all that takes time
        import threadpoolctl

        network, images, labels = load(args)
        shown = labels[: args.images]
        check_images(shown, args.perplexity)
        args.out.mkdir(parents=True, exist_ok=True)
        swapped = [runs.swapped_accuracy(network, images, labels, seed) for seed in range(PAIRINGS)]
    own, swapped = runs.accuracy(network, images, labels), statistics.spread(swapped)
    print(
        f"{len(images)} test images, {args.source}: {own:.2f} %, with the filters of others {statistics.text(swapped)} %",
        flush=True,
    )

    separations, embedded = {}, {}
    for layer, kinds in inside(network, images[: args.images], args.seed).items():
        with threadpoolctl.threadpool_limits(1):  # several stand still for minutes where other work has the cores
            separations[layer] = {kind: separation(values, shown) for kind, values in kinds.items()}
            embedded[layer] = {kind: embed(values, args.perplexity, args.seed) for kind, values in kinds.items()}
        percents = ", ".join(f"{kind} {percent:.1f} %" for kind, percent in separations[layer].items())
        print(f"{layer}, classes by their neighbours: {percents}", flush=True)
    gains = gained(separations)
    if gains:
        parts = ", ".join(f"{kind} {gain:+.1f}" for kind, gain in gains.items())
        print(f"The last layer tells classes apart better than the first, by points: {parts}", flush=True)
    draw(embedded, separations, shown).savefig(args.out / "tsne.png", dpi=110)
    arrays = {f"{layer}_{kind}": places for layer, kinds in embedded.items() for kind, places in kinds.items()}
    np.savez(args.out / "tsne.npz", labels=shown, **arrays)
    content = {
        "file": args.file and str(args.file),
        "settings": {name: getattr(args, name) for name in ("images", "perplexity", "seed", "source")},
        "test_images": len(images),
        "accuracy": own,
        "swapped": swapped,
        "accuracy_of_neighbours": separations,
        "gain_of_last_layer": gains,
    }
    files.write_json(args.out / "results.json", {**common.circumstances(), **content})
    print(f"Files in {args.out}: tsne.png, tsne.npz, results.json")
    return 0


if __name__ == "__main__":
    experiment.run_script(main)
