# SPDX-License-Identifier: Apache-2.0
"""Predicts the next three frames of a video from a driving car (Dynamic Filter Networks, section 4.2).

    python -m examples.experiments.dfn.highway_video --baseline
    python -m examples.experiments.dfn.highway_video --baseline --video clip.mp4 folder_of_frames

The network generates a filter of 11 x 11 for every pixel, and a bias, and filters the last frame with them. The twin
(`--baseline`) makes the pixels itself. The first 80 % of every clip train and the last 20 % test, without a frame in
both. Clips are found in the data folder; where there are none, and with `--synthetic`, textured layers that move take
their place. Their true motion is known: the flow that can be read off the filters is measured against it, in pixels.

Frames are made so small that most of the motion from one to the next fits the filters, which reach 5 pixels: those of
clips of 25 and 30 frames a second have 96 rows. Where there are only 10 frames a second (KITTI, Karlsruhe), they are
made as small as crops of 64 rows allow. Where the data come from, and how to use other ones: docs/data.md.

`--recipe reduced` is for a CPU; `--recipe paper` trains for as long as the paper, which needs a GPU.
`--pyramid` trains a network with a coarse and a fine filter beside it, for motions beyond the window, as in
`--synthetic --max-motion 8`. `--tied` is the fully convolutional variant, which also continues whole frames.

Errors are squared errors as in the paper: the mean per pixel x 64 x 64, averaged over the predicted frames.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import functools
import pathlib

import numpy as np

from examples.experiments import data
from examples.experiments import figures as figures_module
from examples.experiments.core import common, experiment, harness
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
TRAINING = 0.8  # share of every clip, from its start
MOMENTS = 16  # of every clip to test at
TEST_SEED = 2**31  # no training can have it


def parse(arguments=None):
    parser = experiment.new_parser(__doc__, "outputs/highway_video", RECIPES)
    crops.add_options(parser, "synthetic sequences")
    add = parser.add_argument
    add("--video", nargs="+", metavar="PATH", help="video files or folders of frames, in place of the data folder")
    add("--rows", type=common.positive_int, default=96, help="rows of the frames of --video, --size at least")
    add("--frame-limit", type=common.positive_int, help="read only the first frames of every clip")
    add("--data-dir", metavar="DIR", help=f"{common.DATA_DIR}: {', '.join(ROWS)}")
    add("--synthetic-sequences", type=common.positive_int, default=400, help="to train on, with --synthetic")
    add("--test-sequences", type=common.positive_int, default=100, help="synthetic ones to test on")
    add("--max-motion", type=common.positive_float, default=4.0, help="of synthetic layers: pixels a frame, per axis")
    add("--kernel-size", type=common.positive_int, default=11, help="rows and columns of the filters")
    add("--input-frames", type=common.positive_int, default=3, help="frames given")
    add("--output-frames", type=common.positive_int, default=3, help="frames to predict")
    add("--pyramid", action="store_true", help="train a network with a coarse and a fine filter too")
    args = harness.parse(parser, arguments, SMOKE, RECIPES)
    if args.video and args.synthetic:
        parser.error("argument --synthetic: not allowed with --video")
    if args.input_frames < 2:
        parser.error("argument --input-frames: expected 2 at least, which the network reads at once")
    if args.kernel_size % 2 == 0:
        parser.error(f"argument --kernel-size: expected an odd number, received {args.kernel_size}")
    if args.size % 4 or args.size < 16:
        parser.error(f"argument --size: expected a multiple of 4 of at least 16, received {args.size}")
    if args.video and args.rows < args.size:
        parser.error(f"argument --rows: expected --size {args.size} at least, received {args.rows}")
    if args.pyramid and args.baseline == "only":
        parser.error("argument --pyramid: not allowed with --baseline only")
    return args


def load_clips(args):
    """The clips, `[frames, height, width]` each, by name; none where there are no data."""
    read = functools.partial(data.load_video, limit=args.frame_limit)
    if args.video:
        return {path: read(path, args.rows) for path in args.video}
    clips = {}
    for name, rows in ROWS.items() if not args.synthetic else ():
        path = data.find_data(name, args.data_dir)
        if path is None:
            continue
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEOS)
        clips.update({str(pathlib.PurePath(name, file.name)): read(file, rows) for file in files})
        if not files:
            clips[name] = read(path, rows)
    return clips


def in_time(clips, frames):
    """Cuts clips in two: what comes first, to train on, and what comes last, to test on.

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


def segments(clip, frames, size, name="a clip"):
    """Segments of a clip at fixed moments and places, `[segments, frames, size, size, 1]`; `name` is for errors."""
    starts = crops.spread(len(clip) - frames, MOMENTS)
    return np.stack(
        [
            clip[start : start + frames, row : row + size, column : column + size, None]
            for start in starts
            for row, column in crops.places(*clip.shape[1:], size, name)
        ]
    )


def synthetic(args, count, seed, size):
    """Synthetic sequences, the flow to every frame that is to be predicted, and where it is known."""
    frames = args.input_frames + args.output_frames
    videos, flow, mask = data.synthetic_video(count, frames, size, args.max_motion, seed)
    return videos, flow[:, args.input_frames - 1 :], mask[:, args.input_frames - 1 :]


def predicted_flow(network, inputs, steps):
    """The flow to every predicted frame from the one before, `[batch, steps, height, width, 2]`."""
    if isinstance(network, models.FramePredictor):
        size = network.output_layer.kernel_size
        return inspection.filters_to_flow(inspection.generated_filters(network, inputs, steps=steps), size)
    return network(inputs, steps=steps, return_flow=True)[1].numpy()


def with_flow(networks):
    """Those that move what is there, and say where it comes from."""
    return {name: network for name, network in networks.items() if name != "baseline"}


def flow_errors(args, networks):
    """End-point errors in pixels, of flow that nobody has shown the networks, on synthetic sequences."""
    videos, flow, mask = synthetic(args, args.test_sequences, TEST_SEED, args.size)
    inputs, flow, mask = videos[:, : args.input_frames], flow[:, :1], mask[:, :1]  # later ones are of own predictions
    found = {
        name: np.concatenate([predicted_flow(network, part, 1) for part, _ in crops.batches(inputs, inputs)])
        for name, network in networks.items()
    }
    found["no motion"] = np.zeros_like(flow)
    found["mean motion"] = np.broadcast_to(flow[mask].mean(axis=0), flow.shape)
    return {name: inspection.end_point_error(vectors, flow, mask) for name, vectors in found.items()}


def showcase(tests, given, count=3):
    """Which segments to draw, arrays by group: those among the ones with more motion than most."""
    each = -(-count // len(tests))
    chosen = {}
    for name, frames in tests.items():
        change = np.square(frames[:, given:] - frames[:, given - 1 : given]).mean(axis=(1, 2, 3, 4))
        ranks = (np.linspace(0.6, 0.95, each) if each > 1 else np.array([0.85])) * (len(frames) - 1)
        chosen[name] = np.argsort(change)[ranks.round().astype(int)]
    return chosen


def draw(args, networks, tests, true_flow=None):
    """Figures and a film of the segments of `showcase`; `true_flow` of the tests, where it is known, `(flow, mask)`."""
    given = args.input_frames
    chosen = showcase(tests, given)
    frames = np.concatenate([tests[name][rows] for name, rows in chosen.items()])[:4]
    inputs, targets = frames[:, :given], frames[:, given:]
    shown = {name: crops.predict(network, inputs) for name, network in networks.items()}
    scene = dict(
        inputs=inputs[:3], targets=targets[:3], baseline=shown["baseline"][:3] if "baseline" in shown else None
    )
    if true_flow is not None:
        vectors, mask = (array[np.concatenate(list(chosen.values()))[:3]] for array in true_flow)
        scene["true_flow"] = np.where(mask[..., None], vectors, np.nan)
    figures = {}
    for name in with_flow(networks):
        flow = predicted_flow(networks[name], inputs[:3], args.output_frames)
        figures[f"{name}.png"] = figures_module.highway_figure(**scene, predictions=shown[name][:3], flow=flow)
    if "dfn" in networks:
        filters = inspection.generated_filters(networks["dfn"], inputs[:1], steps=1)[0, 0]
        figures["filters.png"] = figures_module.filters_figure(inputs[0, -1], filters, args.kernel_size)
    if not figures:
        figures["baseline.png"] = figures_module.moving_mnist_figure(inputs[:3], targets[:3], shown["baseline"][:3])
    for name, figure in figures.items():
        figure.savefig(args.out / name, dpi=110)
    films = [np.concatenate([inputs, part], axis=1) for part in (targets, *shown.values())]
    film = np.concatenate(list(np.concatenate(films, axis=3)), axis=1)
    figures_module.save_gif(args.out / "predictions.gif", film, fps=3, scale=max(1, 128 // args.size))
    return [*figures, "predictions.gif"]


def draw_whole(args, network, clip):
    """A figure of the continuation of whole frames, which a network without untied biases can do; returns its name."""
    frames = clip[None, : args.input_frames + args.output_frames, ..., None]
    inputs, targets = frames[:, : args.input_frames], frames[0, args.input_frames :]
    made = network(inputs, return_filters=True)
    flow = inspection.filters_to_flow(made["filters"][0], args.kernel_size)
    figure = inspection.new_figure(4 * len(targets), 7)
    strongest = max(float(np.abs(flow).max()), 1e-6)
    rows = {"truth": targets, "prediction": made["frames"][0].numpy()}
    rows["flow"] = inspection.flow_to_color(flow, max_magnitude=strongest)
    figures_module.sequence_grid(figure, rows, [f"$t+{after}$" for after in range(1, len(targets) + 1)])
    figure.savefig(args.out / "whole_frames.png", dpi=110)
    return "whole_frames.png"


def main(arguments=None):
    """Returns the exit status."""
    args = parse(arguments)
    frames, given = args.input_frames + args.output_frames, args.input_frames
    true_flow = None
    with experiment.preparing(args):
        clips = load_clips(args)
        learned, tested = in_time(clips, frames)
        tests = {name: segments(clip, frames, args.size, f"{name} (see --size)") for name, clip in tested.items()}
        if not clips:
            if not args.synthetic:
                print("No clips found: moving textures take their place. See --video and --data-dir.")
            made = synthetic(args, args.synthetic_sequences, args.seed, args.size * 5 // 4)[0]
            learned = dict(enumerate(made[..., 0]))
            tests["synthetic"], *true_flow = synthetic(args, args.test_sequences, TEST_SEED, args.size)
    if args.flow_truth is None:
        args.flow_truth = not clips
    trained_on = common.fingerprint(learned) if clips else "synthetic"
    run = harness.begin(args, free=["flow_truth", "pyramid", "test_sequences"], data=trained_on)
    films = [*learned.values(), *(clip[..., ::-1] for clip in learned.values())]  # mirrored: as likely, and for free

    def batches(first, end):
        return data.split_frames(
            data.video_clips(films, args.batch_size, end, first, args.seed, frames, args.size), given
        )

    image_shape = (None, None, 1) if args.tied else (args.size, args.size, 1)
    sizes = dict(image_shape=image_shape, kernel_size=args.kernel_size, width=args.width)
    sizes.update(input_frames=given, output_frames=args.output_frames)
    builders = {"dfn": functools.partial(models.dfn_highway, **sizes, untied_bias=not args.tied)}
    if args.pyramid:
        builders["pyramid"] = functools.partial(pyramid, **sizes)
    builders["baseline"] = functools.partial(models.dfn_highway_baseline, **sizes, untied_bias=not args.tied)
    trained = harness.train_networks(run, builders, common.squared_error, batches)
    if not experiment.finished(run, trained):
        return 0

    networks = {name: done.network for name, done in trained.items()}
    predictors = {name: functools.partial(crops.predict, network) for name, network in networks.items()}
    predictors["last frame"] = lambda inputs: np.repeat(inputs[:, -1:], args.output_frames, axis=1)
    content = {
        "unit": "squared error: mean per pixel x 64 x 64",
        "training_frames": {name: len(clip) for name, clip in learned.items()} if clips else "synthetic",
        "test": crops.errors(predictors, {name: (array[:, :given], array[:, given:]) for name, array in tests.items()}),
        "paper": PAPER,
    }
    if args.flow_truth and with_flow(networks):
        content["end_point_error"] = flow_errors(args, with_flow(networks))
    files = draw(args, networks, tests, true_flow)
    if args.tied and "dfn" in networks:
        whole = next(iter(tested.values())) if clips else tests["synthetic"][0, ..., 0]
        files.append(draw_whole(args, networks["dfn"], whole))
    print_errors(args, content, networks)
    experiment.conclude(run, trained, content, files)
    return 0


def print_errors(args, content, networks):
    print(f"\nErrors of {args.output_frames} predicted frames, {content['unit']}:")
    crops.print_errors(content["test"], networks, PAPER)
    if "end_point_error" in content:
        print(f"Flow of synthetic sequences, up to {args.max_motion:g} pixels per axis, end-point error in pixels:")
        for name, error in content["end_point_error"].items():
            print(f"    {name:<14} {error:8.2f}")


if __name__ == "__main__":
    experiment.run_script(main)
