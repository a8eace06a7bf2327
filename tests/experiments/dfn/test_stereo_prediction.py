# SPDX-License-Identifier: Apache-2.0
"""Stereo prediction as a user runs it: crops, shifts, disparities, errors, whole runs."""

import json

import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.dfn import stereo_disparity, stereo_prediction

# The smallest sizes: a run takes seconds.
TINY = ["--size", "16", "--width", "0.05", "--radius", "2", "--batch-size", "2", "--iterations", "3", "--rows", "20"]
TINY += ["--training-rows", "20", "--checkpoint-every", "2", "--test-pairs", "4", "--synthetic-pairs", "4"]
TINY += ["--training-stretch", "1", "--no-deterministic"]


def run(out, *arguments):
    assert stereo_prediction.main([*TINY, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def pair(disparity, count=2, rows=20, columns=44):
    """Returns images of noise with one disparity."""
    wide = np.random.default_rng(0).random((count, rows, columns + disparity), np.float32)
    return wide[..., :columns], wide[..., disparity:]


def test_paper_recipe():
    args = stereo_prediction.parse(["--recipe", "paper"])
    assert (args.iterations, args.batch_size, args.learning_rate, args.clip_norm) == (20_000, 16, 1e-3, None)
    assert (args.schedule, args.halve_every, args.size, args.width, args.radius) == ("paper", 4000, 64, 1.0, 6)


@pytest.mark.parametrize("disparity", [0, 1, 4])
def test_crops_and_the_one_shift(disparity):
    """The best offset between crops is the disparity minus the shift of the crops."""
    left, right = stereo_prediction.cut(*pair(disparity), 16, 2)
    assert left.shape == right.shape == (2 * 2 * 3, 16, 16, 1)
    same = stereo_disparity.shifted(left, disparity - 2)
    np.testing.assert_array_equal(same[:, :, 2:-2], right[:, :, 2:-2])
    offsets, errors = stereo_disparity.shift_errors(left, right, 2)
    assert offsets[errors.mean(axis=1).argmin()] == disparity - 2
    assert (offsets[errors.argmin(axis=0)] == disparity - 2).all()


def test_truth_leads_to_the_left_crop():
    args = stereo_prediction.parse(["--size", "32", "--test-pairs", "6"])
    images, disparity, known = stereo_prediction.synthetic_test(args)
    left, right = (side[..., 0] for side in stereo_prediction.cut(*images, 32, 6))
    assert left.shape == disparity.shape == known.shape == (6, 32, 32)
    offset = disparity - 6
    columns = np.rint(np.arange(32) + offset).astype(int).clip(0, 31)
    difference = np.abs(np.take_along_axis(left, columns, axis=2) - right)[known].mean()
    assert difference < 0.5 * np.abs(left - right)[known].mean()
    assert disparity.min() >= 0 and disparity.max() <= 12 and 0.5 < known.mean() < 1


def test_teddy_of_the_data_folder(real_data):
    """The disparities of teddy fit the window, and belong to its right view."""
    folder = real_data("stereo/middlebury_teddy").parent.parent
    left, right, disparity = stereo_prediction.load_teddy(stereo_prediction.parse(["--data-dir", str(folder)]))
    known = np.isfinite(disparity)
    assert known.mean() > 0.9 and np.nanmin(disparity) > 2 and np.nanmax(disparity) < 12

    def error(values):
        columns = np.rint(np.arange(left.shape[1]) + np.nan_to_num(values)).astype(int)
        inside = known & (columns < left.shape[1])
        moved = np.take_along_axis(left, np.broadcast_to(columns, left.shape).clip(0, left.shape[1] - 1), axis=1)
        return np.square(moved - right)[inside].mean()

    assert error(disparity) < 0.5 * min(error(np.full_like(disparity, d)) for d in range(13))


def test_run_on_synthetic_pairs(tmp_path):
    results = run(tmp_path, "--synthetic", "--baseline")
    assert list(results["training"]) == ["dfn", "baseline"]
    errors = results["test"]["all"]
    args = stereo_prediction.parse(TINY)
    left, right = stereo_prediction.cut(*stereo_prediction.synthetic_test(args)[0], 16, 2)
    copied = 4096 * np.square(left - right).mean()
    assert list(errors) == ["dfn", "baseline", "one shift", "left crop", "one shift, test", "shift per image"]
    assert errors["left crop"]["mean"] == pytest.approx(copied, rel=1e-5)
    assert list(results["disparity_error"]["synthetic"]) == ["dfn", "middle of window", "best constant"]
    for file in ("predictions.png", "filters.png", "disparity.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")


def test_last_sequence_is_not_trained_on(tmp_path, monkeypatch):
    sequences = {"a": pair(1), "b": pair(2), "c": pair(3)}
    monkeypatch.setattr(data, "load_stereo", lambda folder, rows: sequences[folder])
    trained_on = []
    make = data.stereo_crops
    monkeypatch.setattr(data, "stereo_crops", lambda pairs, *rest: trained_on.extend(pairs) or make(pairs, *rest))
    results = run(tmp_path, "--stereo", "a", "b", "c", "--tied", "--no-flow-truth")
    assert results["tested"] == "c" and results["disparity_error"] == {}
    assert len(trained_on) == 2 * 4  # two calls, each with two sequences and their mirror images
    assert not any(np.shares_memory(side, sequences["c"][0]) for sides in trained_on for side in sides)
    assert np.shares_memory(trained_on[1][0], sequences["b"][0])
    mirrored = trained_on[2][0]
    np.testing.assert_array_equal(mirrored, sequences["a"][1][..., ::-1])  # left and right change places


def test_training_images_are_stretched(monkeypatch):
    sizes = []

    def load(folder, size):
        sizes.append((folder, size))
        return pair(1) if size == 20 else pair(1, columns=size[1])

    monkeypatch.setattr(data, "load_stereo", load)
    args = stereo_prediction.parse([*TINY, "--stereo", "a", "b", "--training-stretch", "0.5", "1", "1.26"])
    pairs, same_size, tested, _ = stereo_prediction.load_sequences(args)
    assert list(pairs) == ["a, 20 x 22", "a, 20 x 44", "a, 20 x 55"] and tested == "b"
    assert [left.shape[2] for left, _ in pairs.values()] == [22, 44, 55]
    assert sorted(sizes, key=str) == [("a", (20, 22)), ("a", (20, 55)), ("a", 20), ("b", 20)]
    assert len(same_size) == 1 and same_size[0][0].shape == (2, 20, 44)


def test_shifts_are_found_at_the_size_of_the_test(tmp_path, monkeypatch):
    """The disparity of the training images is 3 pixels, and 1 pixel at the size of the test images."""
    sequences = {("a", 24): pair(3, rows=24), ("a", 20): pair(1), ("b", 20): pair(2)}
    monkeypatch.setattr(data, "load_stereo", lambda folder, rows: sequences[folder, rows])
    results = run(tmp_path, "--stereo", "a", "b", "--training-rows", "24", "--no-flow-truth")
    assert results["best_shift"] == {"disparity": 1.0, "disparity_of_test": 2.0}
    errors = results["test"]["all"]
    left, right = stereo_prediction.cut(*sequences["b", 20], 16, 2)
    assert errors["one shift, test"]["mean"] == pytest.approx(4096 * np.square(left - right).mean(), rel=1e-5)
    moved = stereo_disparity.shifted(left, -1)
    assert errors["one shift"]["mean"] == pytest.approx(4096 * np.square(moved - right).mean(), rel=1e-5)


def test_resume_needs_the_same_pairs(tmp_path, monkeypatch, no_training):
    sequences = {"a": pair(1), "b": pair(2), "c": pair(3)}
    monkeypatch.setattr(data, "load_stereo", lambda folder, rows: sequences[folder])
    arguments = ["--stereo", "a", "b", "c"]
    no_training(run, tmp_path, *arguments)
    sequences["c"] = pair(2)  # the sequence to test on
    no_training(run, tmp_path, *arguments, "--resume")
    sequences["b"] = sequences["b"][0], sequences["b"][1][::-1]
    message = r"Expected the same training data: \{'b, 20 x 44, right': '2 x 20 x 44, float32, CRC-32 .{8}'\}, as"
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments, "--resume")


def test_missing_sequences_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_DYNFILTER_DATA", raising=False)
    (tmp_path / "stereo" / "karlsruhe_drive0023").mkdir(parents=True)
    assert stereo_prediction.load_sequences(stereo_prediction.parse([*TINY, "--data-dir", str(tmp_path)])) is None
    assert "Not found: stereo/kitti_seq1. Synthetic textures" in capsys.readouterr().out


def test_images_too_narrow_for_crops(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_stereo", lambda folder, rows: pair(1, columns=17 if folder == "b" else 44))
    for order in ("ab", "ba"):
        with pytest.raises(SystemExit, match=r"crops of 16 x 16 fit into. Received: 20 rows and 15 columns"):
            stereo_prediction.main([*TINY, "--stereo", *order, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_images_stretched_to_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_stereo", lambda folder, size: pair(1, columns=44 if size == 20 else size[1]))
    with pytest.raises(
        SystemExit, match=r"Expected a, 20 x 1 \(see .*--training-stretch.* 20 rows and 0 columns to crop"
    ):
        run(tmp_path, "--stereo", "a", "b", "--training-stretch", "0.01")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--stereo", "one"], "--stereo: expected two sequences or more, all different, without --synthetic"),
        (["--stereo", "one", "two", "one"], "--stereo: expected two sequences or more, all different"),
        (["--stereo", "one", "two/../one/"], "--stereo: expected two sequences or more, all different"),
        (["--size", "31"], "--size: expected an even number of at least 16, received 31"),
        (["--radius", "32"], "--radius: expected less than half of --size 64, received 32"),
        (["--rows", "50"], "--rows, --training-rows: expected --size 64 at least"),
        (["--test-sequence", "mine"], "--test-sequence: invalid choice: 'mine'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        stereo_prediction.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_run(python, tmp_path):
    arguments = ["--smoke", "--synthetic", "--baseline", "--export", "onnx", "--out", str(tmp_path)]
    done = python("-m", "examples.experiments.dfn.stereo_prediction", *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    for text in ("one shift", "best constant", "dfn.onnx (onnx, validated)", "baseline.onnx (onnx, validated)"):
        assert text in done.stdout
    for reports in json.loads((tmp_path / "results.json").read_text())["exports"].values():
        assert reports["onnx"]["validation"]["passed"]
