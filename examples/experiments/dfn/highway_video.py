# SPDX-License-Identifier: Apache-2.0
"""Predicts the next three frames of a video from a driving car (Dynamic Filter Networks, section 4.2).

    python -m examples.experiments.dfn.highway_video --baseline
    python -m examples.experiments.dfn.highway_video --baseline --video clip.mp4 folder_of_frames

The network generates an 11 x 11 filter and a bias for every pixel, and filters the last frame with them. The baseline
(`--baseline`) generates the pixels directly. The first 80 % of every clip are for training and the last 20 % for tests,
and no frame is in both parts. Clips are read from the data folder. If there are no clips, or with `--synthetic`, moving
synthetic textures replace them. Their true motion is known, and the flow that the filters imply is compared with it.

Frames are scaled so that most of the motion between two frames fits the filters, 5 pixels in each direction: clips of
25 and 30 frames per second have 96 rows. Clips of 10 frames per second (KITTI, Karlsruhe) have 64 rows, the fewest that
crops of 64 x 64 allow. Sources of the data, and how to use other data: docs/guide/data.md.

`--recipe reduced` is for a CPU; `--recipe paper` trains for as many iterations as the paper, which needs a GPU.
`--pyramid` also trains a network with a coarse and a fine filter, for motion beyond the window of one filter, as in
`--synthetic --max-motion 8`. `--tied` is the fully convolutional variant, which also predicts whole frames.

Errors are squared errors as in the paper: the mean per pixel x 64 x 64, averaged over the predicted frames.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from examples.experiments import data, figures
from examples.experiments.core import files, losses, options, run, training
from examples.experiments.dfn import crops
from examples.experiments.dfn.pyramid import pyramid
from keras_dynfilter import inspection, models

RECIPES = {
    "paper": {"batch_size": 16, "iterations": 20_000, "learning_rate": 1e-3, "schedule": "paper"},
    "reduced": {
        "batch_size": 8,
        "iterations": 1_500,
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "clip_norm": 1.0,
    },
}
SMOKE = {
    "size": 32,
    "width": 0.125,
    "kernel_size": 5,
    "output_frames": 2,
    "batch_size": 2,
    "iterations": 6,
    "checkpoint_every": 3,
    "frame_limit": 40,
    "synthetic_sequences": 8,
    "test_sequences": 8,
}
PAPER = {"dfn": 13.54, "baseline": 15.97}
ROWS = {"highway_video": 96, "stereo/kitti_seq1/left": 64, "stereo/karlsruhe_drive0023/left": 64}
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
TRAINING = 0.8  # fraction of every clip, from its start
MOMENTS = 16  # start frames of test segments in every clip
TEST_SEED = 2**31  # above the largest seed of a training


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `arguments`, or the arguments of the process."""
    parser = options.new_training_parser(__doc__, "outputs/highway_video", RECIPES)
    crops.add_options(parser, "synthetic sequences")
    add = parser.add_argument
    add("--video", nargs="+", metavar="PATH", help="video files or folders of frames, instead of the data folder")
    add("--rows", type=options.positive_int, default=96, help="rows of the frames of --video, at least --size")
    add("--frame-limit", type=options.positive_int, help="read only the first frames of every clip")
    add("--data-dir", metavar="DIR", help=f"{options.DATA_DIR} {', '.join(ROWS)}")
    add(
        "--synthetic-sequences",
        type=options.positive_int,
        default=400,
        help="number of synthetic sequences to train on",
    )
    add("--test-sequences", type=options.positive_int, default=100, help="number of synthetic sequences to test on")
    add(
        "--max-motion",
        type=options.positive_float,
        default=4.0,
        help="largest motion of synthetic layers, pixels per frame and axis",
    )
    add("--kernel-size", type=options.positive_int, default=11, help="rows and columns of the filters")
    add("--input-frames", type=options.positive_int, default=3, help="frames that the network is given")
    add("--output-frames", type=options.positive_int, default=3, help="frames to predict")
    add("--pyramid", action="store_true", help="also train a network with a coarse and a fine filter")
    args = options.parse(parser, arguments, SMOKE, RECIPES)
    if args.video and args.synthetic:
        parser.error("argument --synthetic: not allowed with --video")
    if args.input_frames < 2:
        parser.error("argument --input-frames: expected 2 at least, since the network reads 2 frames at once")
    if args.kernel_size % 2 == 0:
        parser.error(f"argument --kernel-size: expected an odd number, received {args.kernel_size}")
    if args.size % 4 or args.size < 16:
        parser.error(f"argument --size: expected a multiple of 4 of at least 16, received {args.size}")
    if args.video and args.rows < args.size:
        parser.error(f"argument --rows: expected --size {args.size} at least, received {args.rows}")
    if args.pyramid and args.baseline == "only":
        parser.error("argument --pyramid: not allowed with --baseline only")
    return args


# Data


class Loaded(NamedTuple):
    """Holds the clips and the test segments.

    Attributes:
        clips: Clips to train on, `[frames, height, width]`, by name.
        tests: Segments to test on, `[segments, frames, size, size, 1]`, by name.
        whole: A clip whose whole frames are predicted, `[frames, height, width]`.
        true_flow: For synthetic tests, the flow to every predicted frame, and the mask of the pixels where it is known;
            None for real clips.
    """

    clips: dict[Any, np.ndarray]
    tests: dict[str, np.ndarray]
    whole: np.ndarray
    true_flow: tuple[np.ndarray, np.ndarray] | None


def load(args: argparse.Namespace) -> Loaded:
    """Loads clips, or generates synthetic clips."""
    frames = args.input_frames + args.output_frames
    clips = load_clips(args)
    if clips:
        training_parts, test_parts = split_in_time(clips, frames)
        tests = {name: segments(clip, frames, args.size, f"{name} (see --size)") for name, clip in test_parts.items()}
        return Loaded(training_parts, tests, next(iter(test_parts.values())), None)
    if not args.synthetic:
        print("No clips found: synthetic textures replace them. See --video and --data-dir.")
    videos = synthetic(args, args.synthetic_sequences, args.seed, args.size * 5 // 4)[0]
    test, *true_flow = synthetic(args, args.test_sequences, TEST_SEED, args.size)
    return Loaded(dict(enumerate(videos[..., 0])), {"synthetic": test}, test[0, ..., 0], tuple(true_flow))


def load_clips(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Returns the clips, `[frames, height, width]`, by name; the dictionary is empty if there are no data."""
    read = functools.partial(data.load_video, limit=args.frame_limit)
    if args.video:
        return {path: read(path, args.rows) for path in args.video}
    clips = {}
    for name, rows in ROWS.items() if not args.synthetic else ():
        path = data.find_data(name, args.data_dir)
        if path is None:
            continue
        videos = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEOS)
        clips.update({str(pathlib.PurePath(name, file.name)): read(file, rows) for file in videos})
        if not videos:
            clips[name] = read(path, rows)
    return clips


def split_in_time(clips, frames: int):
    """Splits clips into the first part, to train on, and the last part, to test on.

    Raises:
        ValueError: A part is shorter than `frames`.
    """
    parts = {}, {}
    for name, clip in clips.items():
        cut = int(TRAINING * len(clip))
        for part, piece in zip(parts, (clip[:cut], clip[cut:])):
            if len(piece) < frames:
                expected = f"Expected {name} to have {frames} frames or more in its last {1 - TRAINING:.0%}"
                raise ValueError(f"{expected}. Received: {len(clip)} frames in all")
            part[name] = piece
    return parts


def segments(clip: np.ndarray, frames: int, size: int, name: str = "a clip") -> np.ndarray:
    """Cuts segments, `[segments, frames, size, size, 1]`, at fixed moments and places; `name` is for errors."""
    starts = crops.evenly_spaced(len(clip) - frames, MOMENTS)
    return np.stack(
        [
            clip[start : start + frames, row : row + size, column : column + size, None]
            for start in starts
            for row, column in crops.corners(*clip.shape[1:], size, name)
        ]
    )


def synthetic(args: argparse.Namespace, count: int, seed: int, size: int):
    """Generates sequences. Returns them, the flow to every frame to predict, and the mask of the known flow."""
    frames = args.input_frames + args.output_frames
    videos, flow, mask = data.synthetic_video(count, frames, size, args.max_motion, seed)
    return videos, flow[:, args.input_frames - 1 :], mask[:, args.input_frames - 1 :]


# Training


def train(experiment: run.Experiment, loaded: Loaded) -> dict[str, training.Trained]:
    """Trains the networks; returns them by name."""
    args = experiment.args
    frames, clips = args.input_frames + args.output_frames, loaded.clips.values()
    films = [*clips, *(clip[..., ::-1] for clip in clips)]  # mirrored clips are as plausible, and views need no memory

    def batches(first, end):
        clips = data.video_clips(films, args.batch_size, end, first, args.seed, frames, args.size)
        return data.split_frames(clips, args.input_frames)

    image_shape = (None, None, 1) if args.tied else (args.size, args.size, 1)
    sizes = dict(image_shape=image_shape, kernel_size=args.kernel_size, width=args.width)
    sizes.update(input_frames=args.input_frames, output_frames=args.output_frames)
    builders = {"dfn": functools.partial(models.dfn_highway, **sizes, untied_bias=not args.tied)}
    if args.pyramid:
        builders["pyramid"] = functools.partial(pyramid, **sizes)
    builders["baseline"] = functools.partial(models.dfn_highway_baseline, **sizes, untied_bias=not args.tied)
    return training.train_networks(experiment, builders, losses.squared_error, batches)


# Evaluation


def evaluate(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> dict[str, Any]:
    """Computes the errors of the networks, for the results."""
    first = args.input_frames
    predictors = {name: functools.partial(crops.predict, network) for name, network in networks.items()}
    predictors["last frame"] = lambda inputs: np.repeat(inputs[:, -1:], args.output_frames, axis=1)
    groups = {name: (frames[:, :first], frames[:, first:]) for name, frames in loaded.tests.items()}
    real = loaded.true_flow is None
    content = {
        "unit": "squared error: mean per pixel x 64 x 64",
        "training_frames": {name: len(clip) for name, clip in loaded.clips.items()} if real else "synthetic",
        "test": crops.errors(predictors, groups),
        "paper": PAPER,
    }
    if args.flow_truth and with_flow(networks):
        content["end_point_error"] = flow_errors(args, with_flow(networks))
    return content


def predicted_flow(network: keras.Model, inputs: np.ndarray, steps: int) -> np.ndarray:
    """Returns the flow to every predicted frame from the frame before it, `[batch, steps, height, width, 2]`."""
    if isinstance(network, models.FramePredictor):
        size = network.output_layer.kernel_size
        return inspection.filters_to_flow(inspection.generated_filters(network, inputs, steps=steps), size)
    return network(inputs, steps=steps, return_flow=True)[1].numpy()


def with_flow(networks: dict[str, keras.Model]) -> dict[str, keras.Model]:
    """Returns the networks whose filters imply a flow."""
    return {name: network for name, network in networks.items() if name != "baseline"}


def flow_errors(args: argparse.Namespace, networks: dict[str, keras.Model]) -> dict[str, float]:
    """Computes end-point errors, in pixels, of the flow that the filters imply, on synthetic sequences."""
    videos, flow, mask = synthetic(args, args.test_sequences, TEST_SEED, args.size)
    inputs = videos[:, : args.input_frames]
    flow, mask = flow[:, :1], mask[:, :1]  # only to the first predicted frame: later filters depend on predictions
    flows = {
        name: np.concatenate([predicted_flow(network, part, 1) for part, _ in crops.batches(inputs, inputs)])
        for name, network in networks.items()
    }
    flows["no motion"] = np.zeros_like(flow)
    flows["mean motion"] = np.broadcast_to(flow[mask].mean(axis=0), flow.shape)
    return {name: inspection.end_point_error(vectors, flow, mask) for name, vectors in flows.items()}


def print_errors(args: argparse.Namespace, content: dict[str, Any], networks: dict[str, keras.Model]) -> None:
    """Prints errors by network."""
    print(f"\nErrors of {args.output_frames} predicted frames, {content['unit']}:")
    crops.print_errors(content["test"], networks, PAPER)
    if "end_point_error" in content:
        print(f"Flow of synthetic sequences, up to {args.max_motion:g} pixels per axis, end-point error in pixels:")
        for name, error in content["end_point_error"].items():
            print(f"    {name:<14} {error:8.2f}")


# Figures


def draw(args: argparse.Namespace, networks: dict[str, keras.Model], loaded: Loaded) -> list[str]:
    """Draws predictions, flow, filters and a film. Returns the names of the files."""
    first = args.input_frames
    chosen = moving_segments(loaded.tests, first)
    frames = np.concatenate([loaded.tests[name][rows] for name, rows in chosen.items()])[:4]
    inputs, targets = frames[:, :first], frames[:, first:]
    predictions = {name: crops.predict(network, inputs) for name, network in networks.items()}
    scene = dict(inputs=inputs[:3], targets=targets[:3])
    if "baseline" in predictions:
        scene["baseline"] = predictions["baseline"][:3]
    if loaded.true_flow is not None:
        vectors, mask = (array[np.concatenate(list(chosen.values()))[:3]] for array in loaded.true_flow)
        scene["true_flow"] = np.where(mask[..., None], vectors, np.nan)
    drawn = {}
    for name in with_flow(networks):
        flow = predicted_flow(networks[name], inputs[:3], args.output_frames)
        drawn[f"{name}.png"] = figures.highway_figure(**scene, predictions=predictions[name][:3], flow=flow)
    if "dfn" in networks:
        filters = inspection.generated_filters(networks["dfn"], inputs[:1], steps=1)[0, 0]
        drawn["filters.png"] = figures.filters_figure(inputs[0, -1], filters, args.kernel_size)
    if not drawn:
        drawn["baseline.png"] = figures.moving_mnist_figure(inputs[:3], targets[:3], predictions["baseline"][:3])
    if args.tied and "dfn" in networks:
        drawn["whole_frames.png"] = draw_whole(args, networks["dfn"], loaded.whole)
    names = run.save_figures(args, drawn)
    films = [np.concatenate([inputs, part], axis=1) for part in (targets, *predictions.values())]
    film = np.concatenate(list(np.concatenate(films, axis=3)), axis=1)
    with files.written_whole(args.out / "predictions.gif", ".gif") as part:
        figures.save_gif(part, film, fps=3, scale=max(1, 128 // args.size))
    return [*names, "predictions.gif"]


def moving_segments(tests, input_frames: int, count: int = 3):
    """Chooses segments with much motion to draw. Returns their indices, by group."""
    per_group = -(-count // len(tests))
    chosen = {}
    for name, frames in tests.items():
        change = np.square(frames[:, input_frames:] - frames[:, input_frames - 1 : input_frames]).mean(
            axis=(1, 2, 3, 4)
        )
        ranks = (np.linspace(0.6, 0.95, per_group) if per_group > 1 else np.array([0.85])) * (len(frames) - 1)
        chosen[name] = np.argsort(change)[ranks.round().astype(int)]
    return chosen


def draw_whole(args: argparse.Namespace, network: keras.Model, clip: np.ndarray):
    """Draws predictions of whole frames by a network without untied biases."""
    frames = clip[None, : args.input_frames + args.output_frames, ..., None]
    inputs, targets = frames[:, : args.input_frames], frames[0, args.input_frames :]
    outputs = network(inputs, return_filters=True)
    flow = inspection.filters_to_flow(outputs["filters"][0], args.kernel_size)
    figure = inspection.new_figure(4 * len(targets), 7)
    max_magnitude = max(float(np.abs(flow).max()), 1e-6)
    rows = {"truth": targets, "prediction": outputs["frames"][0].numpy()}
    rows["flow"] = inspection.flow_to_color(flow, max_magnitude=max_magnitude)
    figures.sequence_grid(figure, rows, [f"$t+{after}$" for after in range(1, len(targets) + 1)])
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, trains, evaluates and draws. Returns the exit status."""
    args = parse(arguments)
    with run.preparing(args):
        loaded = load(args)
    real = loaded.true_flow is None
    if args.flow_truth is None:
        args.flow_truth = not real
    free = ["flow_truth", "pyramid", "test_sequences"]
    experiment = run.begin(args, free=free, data=run.fingerprint(loaded.clips) if real else "synthetic")
    trained = train(experiment, loaded)
    if not run.finished(experiment, trained):
        return 0
    networks = {name: done.network for name, done in trained.items()}
    content = evaluate(args, networks, loaded)
    names = draw(args, networks, loaded)
    print_errors(args, content, networks)
    run.conclude(experiment, trained, content, names)
    return 0


if __name__ == "__main__":
    run.run_script(main)
