# SPDX-License-Identifier: Apache-2.0
"""Compares time and memory of DDF with other filters, as in table 2 of the DDF paper.

All filters are 3x3, in inference, at the size in the paper's table and at the sizes that its authors' code measures. A
call from Python takes 0.2 ms, and more with every operand. Therefore, small images pass a candidate several times
within one call; each pass filters the result of the previous pass, like consecutive layers of a network. Times are per
pass. PAC and full dynamic filters take far longer than the overhead of a call, so images pass them only once. Memory is
the peak memory of TensorFlow while a candidate runs once: operands, result and intermediate values. A line reports each
candidate that does not fit into the free memory.

Candidates:

* conv: a convolution with equal numbers of input and output channels.
* depth-wise: a depth-wise convolution, the reference for the other candidates.
* DDF op: `ops.ddf2d` with given filters.
* with projection: `ops.ddf2d` with spatial filters that a 1x1 convolution computes from the images, not normalised.
* not normalised: `layers.DDF2D` without normalisation.
* DDF module: `layers.DDF2D`.
* PAC: pixel-adaptive convolution in TensorFlow ops: windows weighted by the similarity of a guide, then a kernel.
* full dynamic: a filter per pixel and channel, in TensorFlow ops.

Papers: DDF, https://arxiv.org/abs/2104.14107 (Zhou et al., CVPR 2021); PAC, https://arxiv.org/abs/1904.05373 (Su et
al., 2019).
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

import keras_dynfilter as kdf
from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.layers.chained import chained, repetitions
from benchmarks.targets import Target, print_targets
from examples.experiments.core.environment import cores, processor_name
from examples.experiments.core.options import positive_float, positive_int
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.ops import ddf2d, local_filter2d, pixel_projection

SHAPES = ((2, 200, 300, 256), *((32, size, size, 256) for size in (224, 112, 56, 28, 14, 7)))
REFERENCE = "depth-wise"
NAMES = (  # the reference first, because the other rows show its time ratio
    REFERENCE,
    "conv",
    "DDF op",
    "with projection",
    "not normalised",
    "DDF module",
    "PAC",
    "full dynamic",
)
PAPER = {  # milliseconds and MiB at the first shape, on a GPU
    "conv": (7.5, 356.3),
    "depth-wise": (1.0, 236.0),
    "PAC": (46.4, 3406.4),
    "DDF module": (3.0, 245.7),
}
TARGETS = {"DDF op": 0.6, "DDF module": 1.5}  # largest time, relative to the reference
MEMORY_TOLERANCE = 1.01  # for buffers of the size of a filter, and the granularity of TensorFlow's statistics
DAMPING = 1e-20  # factor of the images in generated filters, so that values do not overflow in several passes


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Describes a way to filter images.

    Attributes:
        apply: Function of the operands. Its result has the shape of the first operand.
        operands: Shapes of the operands.
        maps: Estimate of the peak memory, in arrays of the size of the images.
        once: Whether images pass only once per call. With several passes, TensorFlow would compute the values that
            depend only on the other operands once for all passes.
    """

    apply: Callable
    operands: tuple[tuple[int, ...], ...]
    maps: float
    once: bool = False


def candidates(shape, dtype="float32"):
    """Returns the candidates by name."""
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
    """Builds a `DDF2D`. Without normalisation, its filters compute a mean and do not depend on the images.

    Other filters without normalisation would let values overflow in several passes.
    """
    if normalization is None:
        mean = keras.initializers.Constant(1 / 3)
        options = {"generator_initializer": "zeros", "generator_bias_initializer": mean, **options}
    return DDF2D(3, spatial_norm=normalization, channel_norm=normalization, data_format="channels_last", **options)


def with_projection(inputs, kernel, bias, channel):
    """Computes the part of `DDF2D` that processes images. The rest of the layer processes means and filters."""
    spatial, means = pixel_projection.project_and_pool(inputs, DAMPING * kernel, bias)
    return ddf2d(inputs, channel + DAMPING * means[:, None, None], spatial)


def pac(inputs, guide, kernel):
    """Applies pixel-adaptive convolution.

    Args:
        inputs: `[batch, height, width, channels]`.
        guide: `[batch, height, width, channels]`. It determines the weight of a tap: `exp(-0.5 * |guide at the tap -
            guide at the centre|^2)`.
        kernel: `[taps * channels, filters]`.

    Returns:
        `[batch, height, width, filters]`.
    """
    windows = [
        tap * tf.exp(-0.5 * tf.reduce_sum(tf.square(guide_tap - guide), axis=-1, keepdims=True))
        for tap, guide_tap in zip(_taps(inputs), _taps(guide))
    ]
    return tf.tensordot(tf.concat(windows, axis=-1), kernel, 1)


def full_dynamic(inputs, filters):
    """Applies one filter per pixel and channel; filters are `[batch, height, width, channels * taps]`."""
    with kdf.implementation("composite"):
        return local_filter2d(inputs, filters, 3, heads=inputs.shape[-1])


def _taps(images):
    """Returns the shifted images that the taps of a 3x3 window see, with zeros outside."""
    padded = tf.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = images.shape[1:3]
    return [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]


def parse(arguments=None):
    parser = new_parser("benchmarks.layers.ddf", __doc__)
    add = parser.add_argument
    add(
        "--shape",
        nargs=4,
        type=positive_int,
        action="append",
        metavar=("BATCH", "HEIGHT", "WIDTH", "CHANNELS"),
        help="shape of the images, instead of the paper's (may be repeated)",
    )
    add("--only", nargs="+", choices=NAMES, help=f"only these candidates, and {REFERENCE}")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="dtype of all operands")
    add("--jit-compile", action="store_true", help="compile all candidates with XLA")
    add("--memory-gb", type=positive_float, help="memory to use (default: 0.8 of the free memory; on a GPU no limit)")
    add_json(parser, "outputs/ddf_table.jsonl")
    return parser.parse_args(arguments)


def free_gb():
    """Returns the gigabytes of free main memory, or infinity if the system does not report them."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return math.inf
    return kilobytes * 1024 / 1e9


def measure(name, shape, args, device, limit):
    """Measures a candidate. Returns its row: milliseconds and MiB, or why they are missing. `limit` is in gigabytes."""
    candidate = candidates(shape, args.dtype)[name]
    item_bytes = tf.as_dtype(args.dtype).size
    needed = candidate.maps * math.prod(shape) * item_bytes / 1e9
    times = 1 if candidate.once else repetitions(shape)
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

        once, repeated = (
            tf.function(chained(candidate.apply, count), jit_compile=args.jit_compile) for count in (1, times)
        )
        row["ms"] = timing.median_ms(lambda: call(repeated), budget=2.0, min_calls=3) / times
        growth = timing.peak_mb(lambda: call(once), device)
    except tf.errors.ResourceExhaustedError:
        return {**row, "ms": None, "left_out": "does not fit into the memory of the device"}
    if growth is not None:
        operand_bytes = sum(math.prod(size) for size in candidate.operands) * item_bytes
        row["mib"] = (growth * 1e6 + operand_bytes) / 2**20
    return row


def report_targets(rows):
    """Returns a line for each target and shape."""
    by_shape = {}
    for row in rows:
        by_shape.setdefault(tuple(row["shape"]), {})[row["candidate"]] = row
    lines = []
    for shape, measured in by_shape.items():
        size, reference = "x".join(map(str, shape)), measured.get(REFERENCE)
        for name, at_most in TARGETS.items():
            row = measured.get(name)
            if row is None or None in (row["ms"], reference["ms"]):
                continue
            target = Target(f"{size}: {name} / {REFERENCE}", at_most=at_most)
            lines.append(target.report(row["ms"] / reference["ms"]))
            if None not in (row["mib"], reference["mib"]):
                spatial_filters = math.prod(shape[:3]) * 9 * row["item_bytes"] / 2**20
                at_most = MEMORY_TOLERANCE * (reference["mib"] + spatial_filters)
                quantity = f"{size}: memory of {name} (at most {REFERENCE} and the spatial filters)"
                lines.append(Target(quantity, at_most=at_most, unit=" MiB").report(row["mib"]))
    return lines


def print_row(row, reference_ms, paper):
    if row["ms"] is None:
        print(f"  {row['candidate']:<14}{row['left_out']}", flush=True)
        return
    ratio = f"{row['ms'] / reference_ms:>12.2f}x" if reference_ms else ""
    memory = " " * 10 if row["mib"] is None else f"{row['mib']:>10.1f}"
    print(f"  {row['candidate']:<14}{row['ms']:>10.3f}{memory}{ratio:>15}{paper}", flush=True)


def measure_shape(shape, args, device, limit):
    """Measures and prints the candidates at one shape. Yields their rows."""
    print(f"\n{'x'.join(map(str, shape))}")
    print(f"  {'':<14}{'ms':>10}{'MiB':>10}{'of ' + REFERENCE:>15}")
    reference_ms = None
    for name in NAMES:
        if args.only and name not in (*args.only, REFERENCE):
            continue
        row = measure(name, shape, args, device, limit)
        reference_ms = row["ms"] if name == REFERENCE else reference_ms
        paper = ""
        if shape == SHAPES[0] and name in PAPER:
            paper = "   paper, on a GPU: {:.1f} ms, {:.1f} MiB".format(*PAPER[name])
        print_row(row, reference_ms, paper)
        yield row


def main(arguments=None):
    args = parse(arguments)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        device, limit = "GPU:0", math.inf
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    else:
        device, limit = "CPU:0", 0.8 * free_gb()
        name = f"{processor_name()}, {cores()} cores"
    limit = args.memory_gb or limit
    shapes = [tuple(shape) for shape in args.shape] if args.shape else SHAPES
    common = {"device": name, "tensorflow": tf.version.VERSION, "dtype": args.dtype, "jit_compile": args.jit_compile}
    common["item_bytes"] = tf.as_dtype(args.dtype).size
    print(f"{name}, TensorFlow {tf.version.VERSION}, {args.dtype}{', XLA' if args.jit_compile else ''}")
    rows = []
    with json_lines(args.json) as write:
        for shape in shapes:
            for row in measure_shape(shape, args, device, limit):
                rows.append({**row, **common})
                write(rows[-1])
        if args.jit_compile:
            print(f"\nNo targets: with XLA, TensorFlow's {REFERENCE} convolution is too slow on CPUs to compare with.")
        else:
            print_targets(report_targets(rows))


if __name__ == "__main__":
    main()
