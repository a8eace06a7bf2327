# SPDX-License-Identifier: Apache-2.0
"""Highway driving as a user runs it: split of clips, crops, true flow, coarse and fine filters, whole runs."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.dfn import crops, highway_video
from examples.experiments.dfn.pyramid import pyramid
from keras_dynfilter import models

# The smallest sizes: a run takes seconds.
TINY = ["--size", "16", "--width", "0.05", "--kernel-size", "3", "--batch-size", "2", "--iterations", "3"]
TINY += ["--checkpoint-every", "2", "--test-sequences", "4", "--synthetic-sequences", "4", "--no-deterministic"]


def run(out, *arguments):
    assert highway_video.main([*TINY, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def test_paper_recipe():
    args = highway_video.parse(["--recipe", "paper"])
    assert (args.iterations, args.batch_size, args.learning_rate, args.clip_norm) == (20_000, 16, 1e-3, None)
    assert (args.schedule, args.halve_every) == ("paper", 4000)
    assert (args.size, args.width, args.kernel_size, args.input_frames, args.output_frames) == (64, 1.0, 11, 3, 3)
    assert not args.tied and not args.pyramid


def test_no_frame_is_in_both_parts():
    clips = {"a": np.arange(50.0)[:, None, None], "b": np.arange(100.0, 131)[:, None, None]}
    learned, tested = highway_video.split_in_time(clips, 6)
    for name, clip in clips.items():
        np.testing.assert_array_equal(np.concatenate([learned[name], tested[name]]), clip)
    assert (len(tested["a"]), len(tested["b"])) == (10, 7)
    with pytest.raises(ValueError, match=r"Expected b to have 8 frames or more in its last 20%. Received: 31 frames"):
        highway_video.split_in_time(clips, 8)


def test_segments_cover_every_frame_and_place():
    clip = np.arange(40 * 20 * 50, dtype=np.float32).reshape(40, 20, 50)
    made = highway_video.segments(clip, 6, 16)
    assert made.shape == (16 * 2 * 4, 6, 16, 16, 1)
    np.testing.assert_array_equal(made, highway_video.segments(clip, 6, 16))
    np.testing.assert_array_equal(made[0, ..., 0], clip[:6, :16, :16])
    np.testing.assert_array_equal(made[-1, ..., 0], clip[-6:, -16:, -16:])
    assert len(np.unique(made)) == clip.size  # every frame and every place is tested


@pytest.mark.parametrize("extent, size", [(64, 64), (65, 64), (171, 64), (212, 64)])
def test_corners_cover_the_image(extent, size):
    covered = np.zeros([size, extent])
    for row, column in crops.corners(size, extent, size):
        part = covered[row : row + size, column : column + size]
        assert part.shape == (size, size)
        part += 1
    assert covered.min() >= 1 and len(crops.corners(size, extent, size)) == -(-extent // size)


def test_errors_of_all_groups_together():
    rng = np.random.default_rng(0)
    groups = {name: tuple(rng.random((2, count, 2, 8, 8, 1))) for name, count in (("a", 3), ("b", 40))}
    figures = crops.errors({"zero": np.zeros_like}, groups)
    everything = np.concatenate([targets for _, targets in groups.values()])
    assert figures["all"]["zero"]["mean"] == pytest.approx(4096 * np.square(everything).mean(), rel=1e-5)
    expected = 4096 * np.square(everything).mean(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(figures["all"]["zero"]["per_frame"], expected, rtol=1e-5)
    assert figures["a"]["zero"]["mean"] == pytest.approx(4096 * np.square(groups["a"][1]).mean(), rel=1e-5)
    assert figures["all"]["zero"]["images"] == 86


def test_true_flow_leads_to_the_frame_before():
    """The flow at each pixel leads to a similar value in the frame before."""
    args = highway_video.parse(["--size", "32", "--max-motion", "3"])
    videos, flow, mask = highway_video.synthetic(args, 3, 0, 32)
    assert flow.shape == (3, 3, 32, 32, 2) and mask.shape == (3, 3, 32, 32)
    y, x = np.mgrid[:32, :32]
    for step in range(3):
        last, following = videos[:, step + 2, ..., 0], videos[:, step + 3, ..., 0]
        for i in range(3):
            rows, columns = (
                np.rint(a).astype(int).clip(0, 31) for a in (y + flow[i, step, ..., 1], x + flow[i, step, ..., 0])
            )
            known = mask[i, step]
            difference = np.abs(last[i][rows, columns] - following[i])[known].mean()
            assert difference < 0.7 * np.abs(last[i] - following[i])[known].mean()


def test_flow_of_coarse_and_fine_filters_adds_up():
    model = pyramid((16, 16, 1), 2, 1, kernel_size=3, width=0.05)
    image = tf.random.stateless_uniform([1, 16, 16, 1], [0, 0])
    right, up = 5, 1  # taps of a window of 3 x 3
    coarse = tf.tile(tf.one_hot([[[right]]], 9, 50.0), [1, 16, 16, 1])
    fine = tf.concat([tf.tile(tf.one_hot([[[up]]], 9, 50.0), [1, 16, 16, 1]), tf.zeros([1, 16, 16, 1])], axis=-1)
    moved = model.fine([model.coarse([image, coarse]), fine])
    np.testing.assert_allclose(moved[:, 1:, :-2], image[:, :-1, 2:], atol=1e-6)  # 2 to the right, 1 up
    flow = model._flow(coarse, fine).numpy()
    np.testing.assert_allclose(flow[:, 1:-1, 1:-1], np.broadcast_to([2.0, -1.0], (1, 14, 14, 2)), atol=1e-5)


def test_pyramid_is_saved_and_loaded(tmp_path):
    model = pyramid((16, 16, 1), kernel_size=3, width=0.05)
    frames = np.random.default_rng(0).random((2, 3, 16, 16, 1), np.float32)
    model.save(tmp_path / "pyramid.keras")
    loaded = keras.models.load_model(tmp_path / "pyramid.keras")
    np.testing.assert_array_equal(loaded(frames), model(frames))
    assert model(frames, steps=2).shape == (2, 2, 16, 16, 1)
    assert pyramid().count_params() < models.dfn_highway().count_params()


@pytest.mark.parametrize("shape, steps", [((1, 3, 18, 16, 1), 1), ((1, 2, 16, 16, 1), 1), ((1, 3, 16, 16, 1), 0)])
def test_pyramid_refuses(shape, steps):
    message = "Expected `steps`.*0" if steps == 0 else r"\(batch, 3, height, width, 1\).* Received: frames\.shape=\(1, "
    with pytest.raises(ValueError, match=message):
        pyramid((16, 16, 1), kernel_size=3, width=0.05)(np.zeros(shape, np.float32), steps=steps)


def test_pyramid_of_odd_sizes():
    with pytest.raises(ValueError, match=r"sizes in multiples of 4. Received: frames\.shape=\(None, 3, 18, 16, 1\)"):
        pyramid((18, 16, 1), kernel_size=3, width=0.05)


def test_images_smaller_than_crops(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_video", lambda *_, **__: np.zeros((40, 18, 12), np.float32))
    with pytest.raises(
        SystemExit, match=r"Expected a \(see --size\) .* crops of 16 x 16 fit into. Received: 18 rows and 12 columns"
    ):
        highway_video.main([*TINY, "--video", "a", "--rows", "18", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_whole_frames_of_synthetic_video_are_of_the_test(tmp_path, monkeypatch):
    drawn = []
    whole = highway_video.draw_whole
    monkeypatch.setattr(highway_video, "draw_whole", lambda *arguments: drawn.append(arguments[2]) or whole(*arguments))
    run(tmp_path, "--synthetic", "--tied", "--no-flow-truth")
    tested, _, _ = highway_video.synthetic(highway_video.parse(TINY), 1, highway_video.TEST_SEED, 16)
    np.testing.assert_array_equal(drawn[0], tested[0, ..., 0])


@pytest.mark.slow
def test_run_on_synthetic_video(tmp_path):
    results = run(tmp_path, "--synthetic", "--pyramid", "--baseline", "--max-motion", "2")
    assert list(results["training"]) == ["dfn", "pyramid", "baseline"]
    errors = results["test"]["all"]
    assert list(errors) == ["dfn", "pyramid", "baseline", "last frame"]
    assert all(len(error["per_frame"]) == 3 and error["images"] == 12 for error in errors.values())
    assert list(results["end_point_error"]) == ["dfn", "pyramid", "no motion", "mean motion"]

    args = highway_video.parse([*TINY, "--max-motion", "2"])
    videos, flow, mask = highway_video.synthetic(args, 4, highway_video.TEST_SEED, 16)
    copied = 4096 * np.square(videos[:, 3:] - videos[:, 2:3]).mean()
    assert errors["last frame"]["mean"] == pytest.approx(copied, rel=1e-5)
    still = np.linalg.norm(flow[:, 0], axis=-1)[mask[:, 0]].mean()
    assert results["end_point_error"]["no motion"] == pytest.approx(still, rel=1e-5)
    for file in ("dfn.png", "pyramid.png", "filters.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "predictions.gif").read_bytes().startswith(b"GIF8")


def test_run_on_clips_and_whole_frames(tmp_path, monkeypatch):
    clips = {name: np.random.default_rng(i).random((40, 18, 30), np.float32) for i, name in enumerate("ab")}
    monkeypatch.setattr(data, "load_video", lambda path, rows, limit: clips[path][:limit])
    results = run(tmp_path, "--video", "a", "b", "--rows", "18", "--tied")
    assert results["training_frames"] == {"a": 32, "b": 32}
    assert list(results["test"]) == ["all", "a", "b"] and "end_point_error" not in results
    assert (tmp_path / "whole_frames.png").read_bytes().startswith(b"\x89PNG")


def test_resume_needs_the_same_clips(tmp_path, monkeypatch, no_training):
    clips = {name: np.random.default_rng(i).random((40, 18, 30), np.float32) for i, name in enumerate("ab")}
    monkeypatch.setattr(data, "load_video", lambda path, rows, limit: clips[path][:limit])
    arguments = ["--video", "a", "b", "--rows", "18"]
    no_training(run, tmp_path, *arguments)
    clips["b"][32:] = 0  # only frames to test on
    no_training(run, tmp_path, *arguments, "--resume")
    clips["b"][31] = 0
    message = r"Expected the same training data: \{'b': '32 x 18 x 30, float32, CRC-32 .{8}'\}, as in"
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments, "--resume")

    no_training(run, tmp_path, "--synthetic")
    no_training(run, tmp_path, "--synthetic", "--resume")
    monkeypatch.setattr(highway_video, "load_clips", lambda args: clips)
    with pytest.raises(SystemExit, match=r"the same training data: synthetic, as in .* Received: \{'a': '32 x 18"):
        run(tmp_path, "--synthetic", "--resume")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "30"], "--size: expected a multiple of 4 of at least 16, received 30"),
        (["--kernel-size", "10"], "--kernel-size: expected an odd number, received 10"),
        (["--input-frames", "1"], "--input-frames: expected 2 at least"),
        (["--video", "a.mp4", "--rows", "60"], "--rows: expected --size 64 at least, received 60"),
        (["--pyramid", "--baseline", "only"], "--pyramid: not allowed with --baseline only"),
        (["--synthetic", "--video", "a.mp4"], "--synthetic: not allowed with --video"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        highway_video.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_video(tmp_path):
    with pytest.raises(SystemExit, match="Expected `path` to be a video file or a folder of frames"):
        highway_video.main([*TINY, "--video", str(tmp_path / "none.mp4"), "--out", str(tmp_path)])


@pytest.mark.slow
def test_smoke_run(python, tmp_path):
    arguments = ["--smoke", "--synthetic", "--baseline", "--pyramid", "--export", "onnx", "--out", str(tmp_path)]
    done = python("-m", "examples.experiments.dfn.highway_video", *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    for text in ("no motion", "pyramid: 6 iterations", "pyramid.onnx (onnx, validated)"):
        assert text in done.stdout
    reports = json.loads((tmp_path / "results.json").read_text())["exports"]
    assert list(reports) == ["dfn", "pyramid", "baseline"]
    for name, by_format in reports.items():
        assert by_format["onnx"]["validation"]["passed"] and (tmp_path / f"{name}.onnx").is_file()
