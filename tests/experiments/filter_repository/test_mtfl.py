# SPDX-License-Identifier: Apache-2.0
"""Landmarks with generated filters: heat maps, errors, the two sets of faces, tables and claims; a small sweep."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import markdown
from examples.experiments.data import mtfl as mtfl_data
from examples.experiments.filter_repository import landmarks, mtfl, mtfl_tables, runs

pytest.importorskip("skimage")
POINTS = np.array([[(20.3, 11.0), (40.8, 12.5), (30.0, 25.25), (22.0, 40.0), (63.0, 0.0)]])
TRUE = np.array([[(0, 0), (10, 0), (5, 5), (2, 10), (8, 10)], [(0, 0), (0, 20), (5, 5), (2, 10), (8, 10)]])


def test_soft_argmax_of_the_targets_are_the_landmarks():
    maps = landmarks.target_heatmaps(POINTS, 64, 1.5).numpy()
    assert maps.shape == (1, 64, 64, 5)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert np.unravel_index(maps[0, :, :, 0].argmax(), (64, 64)) == (11, 20)  # row, column
    scores = np.log(maps + 1e-30)
    np.testing.assert_allclose(landmarks.soft_argmax(scores)[0, :3], POINTS[0, :3], atol=0.05)
    np.testing.assert_allclose(landmarks.soft_argmax(scores)[0, 4], POINTS[0, 4], atol=1.5)  # in a corner
    scores[0, 50, 60, 0] = scores[0, :, :, 0].max() - 0.1  # a second place, far off
    np.testing.assert_allclose(landmarks.soft_argmax(scores)[0, 0], POINTS[0, 0], atol=0.05)


def test_loss_is_the_crossentropy_of_positions():
    targets = landmarks.target_heatmaps(POINTS, 8, 1.0)
    scores = np.random.default_rng(0).normal(size=(1, 8, 8, 5)).astype("float32")
    shares = np.exp(scores) / np.exp(scores).sum(axis=(1, 2), keepdims=True)
    expected = -(targets * np.log(shares)).numpy().sum(axis=(1, 2))
    np.testing.assert_allclose(landmarks.position_crossentropy(targets, tf.constant(scores)), expected, rtol=1e-4)


def test_errors_are_in_percent_of_the_interocular_distance():
    predicted = TRUE + [[(3, 4)]]
    values = landmarks.errors(predicted, TRUE)
    np.testing.assert_allclose(values, [[50] * 5, [25] * 5])
    values[1, 2] = 75
    assert landmarks.describe(values) == {
        "mean": 42.5,
        "max": 75.0,
        "max_face": 50.0,
        "by_landmark": [37.5, 37.5, 62.5, 37.5, 37.5],
    }
    np.testing.assert_allclose(landmarks.errors(TRUE[0], TRUE)[0], 0)


def test_eyes_in_one_place_are_refused():
    together = TRUE.copy()
    together[1, 1] = together[1, 0]
    with pytest.raises(ValueError, match=r"Expected the eyes of every face to be apart\. .* in faces \[1\]"):
        landmarks.errors(TRUE, together)


@pytest.fixture
def few_faces(monkeypatch):
    """Limits the drawn faces to sixty, six of which are tested on."""
    monkeypatch.setitem(mtfl_data.SPLITS, "train", 60)


def test_the_same_faces_in_both_sets(few_faces):
    args = mtfl.parse(["--source", "generated", "--train-images", "6"])
    (images, points), (test_images, test_points) = mtfl.load(args)
    assert images.shape == (2, 6, 64, 64, 3) and points.shape == (2, 6, 5, 2)
    assert len(test_images[0]) == 6
    assert not {face.tobytes() for face in test_points[0]} & {face.tobytes() for face in points[0]}
    aligned, turned = points.astype(np.float64) - 31.5
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=-1), np.linalg.norm(turned, axis=-1), rtol=1e-4)
    angles = [
        np.angle(np.vdot(np.ravel(a @ [1, 1j]), np.ravel(b @ [1, 1j])), deg=True) for a, b in zip(aligned, turned)
    ]
    assert max(np.abs(angles)) <= 45 and np.std(angles) > 10
    again = mtfl.load(args)
    np.testing.assert_array_equal(again[0][0], images)


def test_smoke_and_full_runs_have_their_own_folders(tmp_path):
    out = mtfl.parse([]).out
    assert mtfl.parse(["--full"]).out == out / "full"
    assert mtfl.parse(["--smoke"]).out == out / "smoke"
    assert mtfl.parse(["--smoke", "--out", str(tmp_path)]).out == tmp_path


def test_faces_that_cannot_be_tested_on(monkeypatch, tmp_path):
    arguments = ["--source", "generated", "--out", str(tmp_path)]
    monkeypatch.setitem(mtfl_data.SPLITS, "train", 9)
    with pytest.raises(SystemExit, match=r"Expected 10 faces or more: one of 10 is tested on\. Received: 9"):
        mtfl.main(arguments)
    images, points = mtfl_data.generated_faces(10)
    points[3, 1] = points[3, 0]
    monkeypatch.setattr(mtfl.data, "load_mtfl", lambda *_, **__: (list(images), points, "mtfl"))
    with pytest.raises(SystemExit, match=r"Expected the eyes of every face to be apart\. .* in faces \[3\]"):
        mtfl.main(arguments)
    points[3, 1] += 1
    assert [len(part[0][0]) for part in mtfl.load(mtfl.parse(arguments))] == [9, 1]


@pytest.mark.parametrize("angle, message", [("181", "180 degrees at most"), ("0", "a number above zero")])
def test_bad_angles(angle, message, capsys):
    assert mtfl.parse(["--max-angle", "180"]).max_angle == 180
    with pytest.raises(SystemExit):
        mtfl.parse(["--max-angle", angle])
    assert f"argument --max-angle: expected {message}, received '{angle}'" in capsys.readouterr().err


def run(variant, seed, mean, largest):
    errors = {"mean": mean, "max": largest, "max_face": largest / 2}
    shown = {"faces": [0, 1, 1], "landmarks": [TRUE[0].tolist()] * 3}
    figures = dict(errors=errors, mean_landmark_errors={"mean": 30.0}, shown=shown, parameters=7, history=[{}, {}])
    return {"variant": variant, "seed": seed, **figures, "training_seconds": 60}


RUNS = [
    run("model32_rotated", 1, 12.0, 80.0),
    run("model32_rotated", 0, 10.0, 60.0),
    run("model32_aligned", 0, 8.0, 50.0),
    run("model32_rotated_generated", 0, 9.0, 75.0),
    run("model64_rotated", 0, 9.0, 60.0),
    run("model64_rotated_generated", 0, 8.5, 30.0),
]


# Two seeds of every variant.
PAIRS = [
    *RUNS,
    run("model32_aligned", 1, 8.2, 52.0),
    run("model32_rotated_generated", 1, 9.1, 74.0),
    run("model64_rotated", 1, 9.2, 62.0),
    run("model64_rotated_generated", 1, 8.6, 31.0),
]


def test_tables_and_claims():
    summary = mtfl_tables.summarize(PAIRS)
    assert list(summary) == [
        "model32_aligned",
        "model32_rotated",
        "model32_rotated_generated",
        "model64_rotated",
        "model64_rotated_generated",
    ]
    claims = mtfl_tables.check_claims(summary)
    assert [(markdown.finding(claim), claim["verdict"]) for claim in claims] == [
        ("+2.90 ± 1.00", "undecided"),  # rotated faces, Model32
        ("+1.95 ± 1.00", "undecided"),  # generated filters
        ("+0.55 ± 0.11", "undecided"),  # Model64
        ("+1.40 ± 1.01", "undecided"),  # Model32 gains more
        ("+19.00 ± 10.05", "undecided"),  # Model32, largest error
        ("-4.50 ± 10.01", "undecided"),
        ("+30.50 ± 1.12", "holds"),
        ("-35.00 ± 10.07", "undecided"),
    ]
    text = mtfl_tables.markdown(summary, claims)
    assert "| Model32, D-Rot | 7 | 2 | 2 | 11.00 ± 1.41 | 70.00 ± 14.14 | 111.17 | 35.00 ± 7.07 | 30.00 |" in text
    assert "| Model64, D-Rot-FG | 7 | 2 | 2 | 8.55 ± 0.07 | 30.50 ± 0.71 | 46.65 | 15.25 ± 0.35 | 30.00 |" in text
    assert "| Model32 gains more than Model64, largest error | -35.00 ± 10.07 | undecided |" in text
    assert "`mean landmarks`: the mean error of the mean landmarks of the training faces\n" in text


def test_single_seeds_decide_nothing():
    claims = mtfl_tables.check_claims(mtfl_tables.summarize(RUNS))
    assert len(claims) == 8 and {claim["verdict"] for claim in claims} == {"undecided"}
    assert mtfl_tables.check_claims(mtfl_tables.summarize(RUNS[:2])) == []  # of one variant


def test_figures():
    bars = mtfl_tables.errors_figure(mtfl_tables.summarize(RUNS)).axes
    heights = [[bar.get_height() for bar in axis.patches if bar.get_height()] for axis in bars]
    assert heights == [[8.0, 11.0, 9.0, 9.0, 8.5], [50.0, 70.0, 75.0, 60.0, 30.0]]
    images, points = np.zeros((2, 2, 4, 4, 3), np.uint8), np.stack([TRUE, TRUE + 1])
    panels = mtfl_tables.faces_figure(RUNS, images, points).axes
    assert len(panels) == 5 * 3
    true, located = panels[4].lines  # the second face of the second row, of rotated faces
    np.testing.assert_array_equal(true.get_xydata(), TRUE[1] + 1)
    np.testing.assert_array_equal(located.get_xydata(), TRUE[0])


def small_network(filters):
    """Replaces `models.repository_mtfl` by a network of one layer per output: the real one takes long to trace."""
    images = keras.Input((64, 64, 3), name="images")
    outputs = {"heatmaps": keras.layers.Conv2D(5, 9, padding="same", name="heatmaps")(images)}
    outputs["reconstruction"] = keras.layers.Conv2D(3, 1, activation="sigmoid", name="reconstruction")(images)
    return keras.Model(images, outputs)


def test_a_small_sweep_is_trained_once(few_faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mtfl.models, "repository_mtfl", small_network)
    arguments = ["--smoke", "--no-deterministic", "--out", str(tmp_path)]
    assert mtfl.main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["variants"]) == ["model32_rotated", "model32_rotated_generated"] and results["missing"] == []
    assert results["variants"]["model32_rotated"]["parameters"] == 76_901 and results["test_faces"] == 4
    description = json.loads((tmp_path / "runs" / "model32_rotated_generated_seed0.json").read_text())
    assert [epoch["step"] for epoch in description["history"]] == [2, 4]
    assert description["history"][-1]["test_error"] == pytest.approx(description["errors"]["mean"], rel=1e-3)
    assert {"heatmaps_loss", "reconstruction_loss"} <= set(description["history"][0])
    for name in ("errors.png", "faces.png"):
        assert (tmp_path / name).stat().st_size > 5_000
    assert "Model32, D-Rot-FG" in capsys.readouterr().out

    # The saved network locates the landmarks in the description of the run.
    _, (images, _) = mtfl.load(mtfl.parse(arguments))
    network = keras.models.load_model(tmp_path / "runs" / "model32_rotated_generated_seed0.keras", compile=False)
    seen = mtfl.locate_landmarks(network, images[1][description["shown"]["faces"]])
    np.testing.assert_allclose(seen, description["shown"]["landmarks"], atol=0.02)
    monkeypatch.setattr(runs.training, "train", None)  # nothing is trained twice
    assert mtfl.main(arguments) == 0


def test_built_networks(monkeypatch):
    monkeypatch.setattr(mtfl.models, "repository_mtfl", lambda filters: ("generated", filters))
    monkeypatch.setattr(mtfl.models, "repository_mtfl_baseline", lambda filters: ("baseline", filters))
    built = {variant: mtfl.build(variant) for variant in mtfl_tables.VARIANTS}
    assert built == {
        "model32_aligned": ("baseline", 32),
        "model32_rotated": ("baseline", 32),
        "model32_rotated_generated": ("generated", 32),
        "model64_aligned": ("baseline", 64),
        "model64_rotated": ("baseline", 64),
        "model64_rotated_generated": ("generated", 64),
    }


def test_recipes():
    reduced, full = mtfl.parse([]), mtfl.parse(["--full"])
    assert (reduced.epochs, full.epochs) == tuple(mtfl.RECIPES[name]["epochs"] for name in ("reduced", "full"))
    assert (reduced.seeds, full.seeds) == ([0], [0])
    assert mtfl.parse(["--full", "--epochs", "7"]).epochs == 7
