# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 sweep of the filter repository: recipes, tables, claims, curves; a small sweep."""

import json

import keras
import numpy as np

from examples.experiments import data
from examples.experiments.core import markdown
from examples.experiments.filter_repository import cifar10, cifar10_figures, runs
from keras_dynfilter.models import feature_generator, generated_network
from keras_dynfilter.models.filter_repository.generated_network import generated_conv2d


def run(variant, seed, trained, tested, swapped=20.0, train_images=50_000):
    history = [{"train_accuracy": a, "test_accuracy": b} for a, b in zip(trained, tested)]
    swapped = swapped if variant == "generated" else None
    return {
        "variant": variant,
        "seed": seed,
        "parameters": 7,
        "train_images": train_images,
        "history": history,
        "swapped": swapped,
        "training_seconds": 120,
    }


RUNS = [
    run("generated", 1, [50, 99.5], [60, 71]),
    run("generated", 0, [40, 98.5], [58, 70], 30.0),
    run("baseline", 0, [30, 90], [50, 71]),
]


# Two seeds of every variant.
PAIRS = [
    *RUNS,
    run("baseline", 1, [30, 91], [50, 71.2]),
    run("vgg11", 0, [50, 100], [60, 70.6]),
    run("vgg11", 1, [50, 100], [60, 70.8]),
]


def test_tables_and_claims():
    summary = cifar10_figures.summarize(PAIRS)
    assert list(summary) == ["baseline", "generated", "vgg11"] and summary["generated"]["seeds"] == [0, 1]
    assert summary["generated"]["by_epoch"]["test_accuracy"] == [[58, 70], [60, 71]]
    claims = cifar10_figures.check_claims(summary)
    assert [(markdown.finding(claim), claim["verdict"]) for claim in claims] == [
        ("90.50", "holds"),  # the baseline underfits
        ("99.00", "holds"),
        ("25.00", "holds"),
        ("+8.50 ± 0.71", "holds"),
        ("-0.60 ± 0.51", "undecided"),
        ("-0.20 ± 0.51", "undecided"),  # VGG11 may still be a point above
    ]
    text = cifar10_figures.markdown(summary, claims)
    assert "| generated filters | 7 | 2 | 2 | 99.00 ± 0.71 | 70.50 ± 0.71 | 25.00 ± 7.07 | 2 |" in text
    assert "| baseline | 7 | 2 | 2 | 90.50 ± 0.71 | 71.10 ± 0.14 |  | 2 |" in text
    assert "on test images | -0.60 ± 0.51 | undecided |" in text
    claims = cifar10_figures.check_claims(cifar10_figures.summarize(RUNS))
    assert [claim["verdict"] for claim in claims] == ["holds"] * 3 + ["undecided"] * 2  # one seed of the baseline
    (claim,) = cifar10_figures.check_claims(cifar10_figures.summarize(RUNS[2:]))
    assert claim["claim"].startswith("the baseline underfits")


def test_vgg11_and_a_point():
    tested = {"generated": [70.0, 70.1], "vgg11": [70.4, 70.5]}
    finished = [run(name, seed, [99], [value]) for name, values in tested.items() for seed, value in enumerate(values)]
    claim = cifar10_figures.check_claims(cifar10_figures.summarize(finished))[-1]
    assert markdown.finding(claim) == "-0.40 ± 0.07" and "as accurate as VGG11" in claim["claim"]
    assert claim["verdict"] == "holds"


def test_few_images_leave_underfitting_undecided():
    summary = cifar10_figures.summarize([{**one, "train_images": 5_000} for one in PAIRS])
    claims = cifar10_figures.check_claims(summary)
    assert [claim["verdict"] for claim in claims[:4]] == ["undecided", "undecided", "holds", "holds"]
    text = cifar10_figures.markdown(summary, claims)
    assert "(trained on 5,000 of 50,000, which are easier to fit) | 90.50 | undecided |" in text


def test_curves():
    trained, tested = cifar10_figures.figure(cifar10_figures.summarize(RUNS)).axes
    assert [line.get_ydata().tolist() for line in trained.lines] == [[30, 90], [45, 99]]
    assert [line.get_ydata().tolist() for line in tested.lines] == [[50, 71], [59, 70.5]]
    assert tested.lines[0].get_xdata().tolist() == [1, 2]


def test_recipes():
    reduced, full = cifar10.parse([]), cifar10.parse(["--full"])
    assert (reduced.train_images, reduced.seeds) == (5_000, [0])
    assert (full.train_images, full.epochs, full.seeds) == (None, 100, [0, 1, 2])
    assert cifar10.parse(["--full", "--train-images", "9"]).train_images == 9


def test_augmentation_and_watched_images(monkeypatch):
    calls = {}
    trained = runs.training.Trained(None, 4, 1.0, [{"test_accuracy": 50.0}], 2.0)
    monkeypatch.setattr(runs.run, "training_figures", lambda _: {"history": trained.history})
    monkeypatch.setattr(runs, "accuracy", lambda network, images, labels: float(len(images)))
    monkeypatch.setattr(data, "image_batches", lambda *_, **how: how)

    def train_network(run, name, build, generated, loss, batches, images, seed, evaluate, **options):
        calls.update(how=batches(0, 4), images=images, watched=evaluate(None), **options)
        return trained

    monkeypatch.setattr(runs, "train_network", train_network)
    arrays = np.zeros((5, 32, 32, 3), np.uint8), np.zeros(5, int)

    class Experiment:
        args, settings = cifar10.parse(["--augment"]), {}

    monkeypatch.setattr(cifar10_figures, "WATCHED", 3)
    description = cifar10.train_run(Experiment, "baseline", 0, arrays, [array[:2] for array in arrays])
    assert description["train_images"] == 5 and description["swapped"] is None
    assert calls["how"]["pad"] == 4 and calls["how"]["flip"] is True
    assert calls["watched"] == {"test_accuracy": 2.0, "train_accuracy": 3.0} and calls["images"] == 5
    Experiment.args = cifar10.parse([])
    cifar10.train_run(Experiment, "baseline", 0, arrays, arrays)
    assert calls["how"]["pad"] == 0 and calls["how"]["flip"] is False


def test_built_networks(monkeypatch):
    monkeypatch.setattr(cifar10.models, "repository_cifar10", lambda base_filters: ("generated", base_filters))
    monkeypatch.setattr(cifar10.models, "repository_cifar10_baseline", lambda: "baseline")
    monkeypatch.setattr(cifar10.models, "vgg11", lambda: "vgg11")
    built = {variant: cifar10.build(variant, 3) for variant in cifar10_figures.VARIANTS}
    assert built == {"baseline": "baseline", "generated": ("generated", 3), "vgg11": "vgg11"}


def test_the_first_images_are_loaded():
    args = cifar10.parse(["--source", "generated", "--train-images", "5", "--test-images", "3"])
    whole = data.load_cifar10("test", source="generated")[:2]
    train, test = cifar10.load(args)
    assert train[0].shape == (5, 32, 32, 3) and train[1].shape == (5,)
    for array, expected in zip(test, whole):
        np.testing.assert_array_equal(array, expected[:3])
    args.test_images = None
    assert len(cifar10.load(args)[1][0]) == len(whole[0]) > 3


def small_network(base_filters):
    """Replaces `models.repository_cifar10` by a network of one generated convolution: the real one has 21M weights."""
    generator = feature_generator((32, 32, 3), [(4, 2)], [None], [[(16, 1, 0)]])

    def build(images, features):
        maps = generated_conv2d(images, features[1], 8, 3, base_filters, 2, "conv_1")
        return keras.layers.Dense(10, "softmax")(keras.layers.GlobalAveragePooling2D()(maps))

    return generated_network(generator, build, "classes", "small")


def test_a_small_sweep_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10.models, "repository_cifar10", small_network)
    arguments = ["--smoke", "--no-deterministic", "--source", "generated", "--out", str(tmp_path)]
    assert cifar10.main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["variants"]) == ["baseline", "generated"] and results["missing"] == []
    assert results["variants"]["baseline"]["parameters"] == 964_874
    assert results["variants"]["baseline"]["swapped"] is None
    figures = results["variants"]["generated"]
    assert len(figures["by_epoch"]["train_accuracy"][0]) == 2 and figures["minutes"] >= 0
    assert (tmp_path / "accuracy.png").stat().st_size > 5_000

    # The saved network has the accuracies in the results, with its own filters and with the filters of other images.
    _, (images, labels) = cifar10.load(cifar10.parse(arguments))
    network = keras.models.load_model(tmp_path / "runs" / "generated_seed0.keras", compile=False)
    assert figures["test_accuracy"]["mean"] == runs.accuracy(network, images, labels)
    assert figures["swapped"]["mean"] == runs.swapped_accuracy(network, images, labels)
    monkeypatch.setattr(runs.training, "train", None)  # nothing is trained twice
    assert cifar10.main(arguments) == 0
