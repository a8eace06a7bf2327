# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.ddf`: latency and memory of DDF beside other filters, table 2 of its paper.

3x3 filters in inference, at the size of the paper's table and at those that its authors' code times besides. Small
images go through a candidate several times within one call, one time filtering what the time before returned, as the
layers of a network do; times are those of one. Else it would be calls from Python that are timed, which take 0.2 ms,
and more with every operand; PAC and full dynamic filters, which take so much longer, contain them. Memory is what
TensorFlow holds at most while a candidate runs once: operands, result and what lies between. What would not fit into
the memory that is free is left out, with a line that says so.

| candidate | is |
| --- | --- |
| conv | a convolution of as many channels |
| depth-wise | a depth-wise convolution, the yardstick |
| DDF op | `ops.ddf2d` on given filters |
| with projection | the same on spatial filters that a 1x1 convolution makes of the images, not normalised |
| not normalised | `layers.DDF2D`, which generates the filters of both branches, without `FilterNorm` |
| DDF module | the same with it |
| PAC | pixel-adaptive convolution: windows weighted by the likeness of a guide, then a dense kernel; composed |
| full dynamic | a filter for every pixel and channel; composed |

Papers: https://arxiv.org/abs/2104.14107 (Zhou et al., CVPR 2021); PAC: https://arxiv.org/abs/1904.05373 (Su et al.,
2019).
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib

import keras
import tensorflow as tf

import keras_dynfilter as kdf
from benchmarks import timing
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.ops import ddf2d, local_filter2d, pixel_projection

SHAPES = ((2, 200, 300, 256), *((32, size, size, 256) for size in (224, 112, 56, 28, 14, 7)))
YARDSTICK = "depth-wise"
NAMES = (
    YARDSTICK,
    "conv",
    "DDF op",
    "with projection",
    "not normalised",
    "DDF module",
    "PAC",
    "full dynamic",
)  # the first one is what others are compared with
# The paper's, at the first shape: milliseconds, MiB.
PAPER = {"conv": (7.5, 356.3), "depth-wise": (1.0, 236.0), "PAC": (46.4, 3406.4), "DDF module": (3.0, 245.7)}
MOST = {"DDF op": 0.6, "DDF module": 1.5}  # of the time of the yardstick
PIXELS_OF_A_CALL, MOST_IN_A_ROW = 40_000_000, 20  # counted with channels
DAMPED = 1e-20  # what images add to filters: those that pass several times would leave the range of numbers
SLACK = 1.01  # buffers of a filter's size, and how TensorFlow counts


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What is timed.

    Attributes:
        apply: Function of the operands; what it returns has the shape of the first one.
        operands: Shapes of the operands.
        maps: How many arrays of the size of the images are alive at once, at most: to tell what does not fit.
        once: Whether it is timed one at a time, as what it makes of the other operands would be made but once in a row.
    """

    apply: object
    operands: tuple
    maps: float
    once: bool = False


def candidates(shape, dtype="float32"):
    """`Candidate` by name."""
    batch, height, width, channels = shape
    module, plain = (ddf_module(normalization, dtype=dtype) for normalization in ("filter", None))
    module.build(shape)
    plain.build(shape)
    spatial = (batch, height, width, 9)
    return {
        "conv": Candidate(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (shape, (3, 3, channels, channels)), 3),
        "depth-wise": Candidate(
            lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, 1, 1, 1], "SAME"), (shape, (3, 3, channels, 1)), 3
        ),
        "DDF op": Candidate(ddf2d, (shape, (batch, 3, 3, channels), spatial), 2.1),
        "with projection": Candidate(with_projection, (shape, (channels, 9), (9,), (batch, 3, 3, channels)), 2.1),
        "not normalised": Candidate(lambda x: plain(x, training=False), (shape,), 2.2),
        "DDF module": Candidate(lambda x: module(x, training=False), (shape,), 2.2),
        "PAC": Candidate(pac, (shape, shape, (9 * channels, channels)), 28, True),
        "full dynamic": Candidate(full_dynamic, (shape, (batch, height, width, 9 * channels)), 32, True),
    }


def ddf_module(normalization, **options):
    """The layer, which images pass several times: without normalisation they would leave the range of numbers, so its
    filters are those of a mean then, whatever the images are."""
    if normalization is None:
        options = {"kernel_initializer": "zeros", "bias_initializer": keras.initializers.Constant(1 / 3), **options}
    return DDF2D(3, normalization=normalization, data_format="channels_last", **options)


def with_projection(inputs, kernel, bias, channel):
    """What the module does with the images themselves: the rest of it works on their means, and on filters."""
    spatial, means = pixel_projection.project_and_pool(inputs, DAMPED * kernel, bias)
    return ddf2d(inputs, channel + DAMPED * means[:, None, None], spatial)


def pac(inputs, guide, kernel):
    """Pixel-adaptive convolution.

    Args:
        inputs: `[batch, height, width, channels]`.
        guide: The same shape. A tap counts by `exp(-0.5 * |guide there - guide here|^2)`.
        kernel: `[taps * channels, maps]`.

    Returns:
        `[batch, height, width, maps]`
    """
    there = zip(_taps(inputs), _taps(guide))
    windows = [
        tap * tf.exp(-0.5 * tf.reduce_sum(tf.square(other - guide), axis=-1, keepdims=True)) for tap, other in there
    ]
    return tf.tensordot(tf.concat(windows, axis=-1), kernel, 1)


def full_dynamic(inputs, filters):
    """A filter for every pixel and channel, `[batch, height, width, channels * taps]`, on shifted copies."""
    with kdf.implementation("composite"):
        return local_filter2d(inputs, filters, 3, heads=inputs.shape[-1])


def _taps(images):
    """The images, moved by each tap of a 3x3 window, with zeros around them."""
    padded = tf.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = images.shape[1:3]
    return [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers.ddf", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add(
        "--shape",
        nargs=4,
        type=int,
        action="append",
        metavar=("BATCH", "HEIGHT", "WIDTH", "CHANNELS"),
        help="in place of the paper's; may be repeated",
    )
    add("--only", nargs="+", choices=NAMES, help="of the candidates; the yardstick is always there")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    add("--jit-compile", action="store_true", help="all candidates under XLA")
    add("--memory-gb", type=float, help="that may be used; by default 0.8 of what is free, on a GPU no limit")
    add("--json", type=pathlib.Path, default="outputs/ddf_table.jsonl", help="JSON lines go here")
    args = parser.parse_args(arguments)
    if any(size < 1 for shape in args.shape or () for size in shape):
        parser.error("Expected --shape to be sizes above zero")
    return args


def free_gb():
    """Gigabytes of main memory that programs may still take; without end where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            kilobytes = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
        return kilobytes * 1024 / 1e9
    except (OSError, StopIteration):
        return math.inf


def in_a_row(shape):
    """How many times images of a shape go through a candidate within one call."""
    return max(1, min(MOST_IN_A_ROW, PIXELS_OF_A_CALL // math.prod(shape)))


def chained(apply, times):
    """A function that applies another one several times, each time to what came out and to the other operands."""

    def function(images, *others):
        for _ in range(times):
            images = apply(images, *others)
        return images

    return function


def measured(name, shape, args, device, limit):
    """Milliseconds and MiB of a candidate, or why there are none."""
    candidate = candidates(shape, args.dtype)[name]
    item = tf.as_dtype(args.dtype).size
    needed = candidate.maps * math.prod(shape) * item / 1e9
    times = 1 if candidate.once else in_a_row(shape)
    row = {"shape": shape, "candidate": name, "ms": None, "mib": None, "in_a_row": times}
    if needed > limit:
        return {**row, "left_out": f"takes about {needed:.0f} GB, {limit:.0f} GB may be used"}
    try:
        operands = [tf.random.stateless_normal(size, (0, 0), dtype=args.dtype) for size in candidate.operands]

        def call(function):
            result = function(*operands)
            if device.startswith("GPU"):
                tf.test.experimental.sync_devices()
            return result

        once, often = (
            tf.function(chained(candidate.apply, count), jit_compile=args.jit_compile) for count in (1, times)
        )
        row["ms"] = timing.median_ms(lambda: call(often), budget=2.0, least=3) / times
        growth = timing.peak_mb(lambda: call(once), device)
    except tf.errors.ResourceExhaustedError:
        return {**row, "ms": None, "left_out": "does not fit into the memory of the device"}
    if growth is not None:
        row["mib"] = (growth * 1e6 + sum(math.prod(size) for size in candidate.operands) * item) / 2**20
    return row


def bars(rows):
    """One line per bar and shape: what was found, and whether it is met."""
    by_shape = {}
    for row in rows:
        by_shape.setdefault(tuple(row["shape"]), {})[row["candidate"]] = row
    lines = []
    for shape, found in by_shape.items():
        text, yardstick = "x".join(map(str, shape)), found.get(YARDSTICK)
        for name, most in MOST.items():
            ours = found.get(name)
            if ours is None or None in (ours["ms"], yardstick["ms"]):
                continue
            ratio = ours["ms"] / yardstick["ms"]
            met = timing.verdict(ratio <= most)
            lines.append(f"{text}: {name} / {YARDSTICK}: {ratio:.2f}, at most {most:.2f}: {met}")
            if None not in (ours["mib"], yardstick["mib"]):
                filters = math.prod(shape[:3]) * 9 * ours["item_bytes"] / 2**20
                most_mib = SLACK * (yardstick["mib"] + filters)
                met = timing.verdict(ours["mib"] <= most_mib)
                lines.append(
                    f"{text}: {name}, memory: {ours['mib']:.1f} MiB, at most {most_mib:.1f}"
                    f" ({YARDSTICK} and the spatial filters): {met}"
                )
    return lines


def _print(row, yardstick, paper):
    ratio = f"{row['ms'] / yardstick:>12.2f}x" if row["ms"] is not None and yardstick else ""
    if row["ms"] is None:
        print(f"  {row['candidate']:<14}{row['left_out']}", flush=True)
        return
    memory = " " * 10 if row["mib"] is None else f"{row['mib']:>10.1f}"
    print(f"  {row['candidate']:<14}{row['ms']:>10.3f}{memory}{ratio:>15}{paper}", flush=True)


def main(arguments=None):
    args = parse(arguments)
    gpus = tf.config.list_physical_devices("GPU")
    device = "GPU:0" if gpus else "CPU:0"
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        limit = math.inf
    else:
        name = f"{timing.cpu()}, {len(os.sched_getaffinity(0))} cores"
        limit = 0.8 * free_gb()
    limit = args.memory_gb or limit
    shapes = [tuple(shape) for shape in args.shape] if args.shape else SHAPES
    common = {"device": name, "tensorflow": tf.version.VERSION, "dtype": args.dtype, "jit_compile": args.jit_compile}
    common["item_bytes"] = tf.as_dtype(args.dtype).size
    args.json.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}, TensorFlow {tf.version.VERSION}, {args.dtype}{', XLA' if args.jit_compile else ''}")
    rows = []
    with open(args.json, "w") as file:
        for shape in shapes:
            print(f"\n{'x'.join(map(str, shape))}")
            print(f"  {'':<14}{'ms':>10}{'MiB':>10}{'of ' + YARDSTICK:>15}")
            yardstick = None
            for each in NAMES:
                if args.only and each not in (*args.only, YARDSTICK):
                    continue
                row = {**measured(each, shape, args, device, limit), **common}
                yardstick = row["ms"] if each == YARDSTICK else yardstick
                paper = ""
                if shape == SHAPES[0] and each in PAPER:
                    paper = "   paper, on a GPU: {:.1f} ms, {:.1f} MiB".format(*PAPER[each])
                _print(row, yardstick, paper)
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows.append(row)
    if args.jit_compile:
        print(f"\nNo bars: under XLA, TensorFlow's {YARDSTICK} convolution is no yardstick on CPUs.")
    else:
        print("\nBars:")
        print("\n".join(f"  {line}" for line in bars(rows)))
    print(f"\nJSON lines: {args.json}")


if __name__ == "__main__":
    main()
