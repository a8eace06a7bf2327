# SPDX-License-Identifier: Apache-2.0
"""The analysis of filter repository networks: vectors of layers, separation of classes, t-SNE."""

import json

import numpy as np
import pytest

from examples.experiments.filter_repository import analysis
from keras_dynfilter import inspection, models

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def network():
    return models.repository_mnist(encoder_channels=3, base_filters=2)


def test_vectors_of_the_layers(network, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    monkeypatch.setattr(analysis, "BATCH", 4)
    vectors = analysis.layer_vectors(network, images)
    assert {layer: {kind: values.shape for kind, values in kinds.items()} for layer, kinds in vectors.items()} == {
        "conv_1": {"coefficients": (7, 10), "filters": (7, 125), "maps": (7, 500)},  # projected
        "conv_2": {"coefficients": (7, 10), "filters": (7, 625), "maps": (7, 320)},
    }
    expected = inspection.inspect_repository(network, images.astype("float32") / 255)
    for layer, kind in (("conv_1", "coefficients"), ("conv_2", "filters"), ("conv_2", "maps")):
        np.testing.assert_allclose(vectors[layer][kind], expected[layer][kind].reshape(7, -1), rtol=1e-4, atol=1e-5)
    distances = [
        np.linalg.norm(values.reshape(7, 1, -1) - values.reshape(1, 7, -1), axis=-1)[np.triu_indices(7, 1)]
        for values in (vectors["conv_1"]["maps"], expected["conv_1"]["maps"])
    ]
    np.testing.assert_allclose(distances[0], distances[1], rtol=0.25)


def test_gain_of_the_last_layer():
    layers = {"conv_1": {"maps": 50.0}, "conv_2": {"maps": 20.0}, "conv_3": {"maps": 80.0}}
    assert analysis.separation_gain(layers) == {"maps": 30.0}
    assert analysis.separation_gain({"conv_1": {"maps": 50.0}}) == {}


def test_networks_have_their_own_folders():
    arguments = ["a/encoder20_seed0.keras"], ["b/x.keras"], ["--smoke"]
    assert [analysis.parse(strings).out.name for strings in arguments] == ["encoder20_seed0", "x", "smoke"]


def test_separation():
    labels = np.repeat(np.arange(3), 20)
    rng = np.random.default_rng(0)
    assert analysis.separation(rng.normal(size=(60, 4)) + 100 * labels[:, None], labels) == 100
    assert analysis.separation(rng.normal(size=(60, 4)), labels) < 70


@pytest.mark.parametrize(
    "labels, perplexity, message",
    [
        (np.arange(60) % 10, 60.0, "Expected --perplexity to be below the number of images, 60. Received: 60"),
        (
            np.arange(12) % 10,
            5.0,
            "Expected --images to give 10 images or more, .* Received: 12, and 2 of a class at most",
        ),
        (np.zeros(9, int), 5.0, "Received: 9, and 9 of a class at most"),
    ],
)
def test_too_few_images(labels, perplexity, message, network, monkeypatch, tmp_path):
    loaded = analysis.Loaded(network, np.zeros((len(labels), 28, 28, 1)), labels)
    monkeypatch.setattr(analysis, "load", lambda _: loaded)
    with pytest.raises(SystemExit, match=message):
        analysis.main(["a.keras", "--perplexity", f"{perplexity}", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_smallest_accepted_number_of_images():
    for labels in (np.repeat([0, 1], 5), np.array([*[0] * 5, *range(1, 6)])):
        analysis.check_images(labels, 9.0)
        values = np.random.default_rng(0).normal(size=(10, 4))
        assert 0 <= analysis.separation(values, labels) <= 100
    assert analysis.embed(values, 9.0, 0).shape == (10, 2)


def test_a_small_analysis(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert analysis.main(["--smoke", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["file"] is None and results["test_images"] == 60 and len(results["swapped"]["values"]) == 3
    assert {*results["accuracy_of_neighbours"]["conv_2"]} == {"coefficients", "filters", "maps"}
    with np.load(tmp_path / "tsne.npz") as arrays:
        assert arrays["conv_1_filters"].shape == (60, 2) and arrays["labels"].tolist()[:11] == [*range(10), 0]
        assert len(arrays) == 1 + 2 * 3
    assert (tmp_path / "tsne.png").stat().st_size > 20_000
    assert "60 test images" in capsys.readouterr().out


def test_figure(tmp_path):
    labels = np.array([0, 1, 1])
    places = {"conv_1": {kind: np.arange(6.0).reshape(3, 2) for kind in analysis.KINDS}}
    drawn = analysis.draw(places, {"conv_1": dict.fromkeys(analysis.KINDS, 55.0)}, labels)
    assert [axis.get_title() for axis in drawn.axes][:2] == [
        "conv_1: coefficients, 55 % by neighbours",
        "conv_1: filters, 55 % by neighbours",
    ]
    assert [line.get_xydata().tolist() for line in drawn.axes[2].lines] == [[[0, 1]], [[2, 3], [4, 5]]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected either FILE.keras or --smoke"),
        (["a.keras", "--smoke"], "expected either FILE.keras or --smoke"),
        (["a.keras", "--images", "20"], "--perplexity: expected less than the number of images, 20"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        analysis.parse(arguments)
    assert message in capsys.readouterr().err


def test_other_files(tmp_path):
    with pytest.raises(SystemExit, match=r"Expected FILE.keras to be a file. Received: .*nothing.keras"):
        analysis.main([str(tmp_path / "nothing.keras")])
    models.repository_mtfl_baseline(2).save(tmp_path / "faces.keras")
    with pytest.raises(SystemExit, match=r"Expected a network of mnist.py or .* inputs of \(64, 64, 3\)"):
        analysis.main([str(tmp_path / "faces.keras"), "--out", str(tmp_path)])
