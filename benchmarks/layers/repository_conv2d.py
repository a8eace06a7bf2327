# SPDX-License-Identifier: Apache-2.0
"""Compares time and memory of `RepositoryConv2D`, an ordinary convolution, and filters that are computed per sample.

The benchmark runs the four layers of the CIFAR-10 network, forward and backward. It computes the gradients with respect
to the images, all weights and, for generated filters, the features. Candidates:

* static: a convolution with trained filters.
* ours: `RepositoryConv2D`, including the dense layer that computes the coefficients. In the last two layers, the dense
  layer alone has 0.4 and 0.9 of the multiply-adds of the convolution.
* ours, coefficients given: `RepositoryConv2D` without the dense layer.
* materialised: computes the filters of all samples, and applies them with one grouped convolution, one group per
  sample.

Memory is the peak memory that TensorFlow allocates, for the batch and for half of the batch. It is compared with the
sizes of the activations (inputs and outputs of the layer), of the coefficients of all samples and of the weights. If
memory is linear in these sizes, the filters of all samples are never in memory at once. The filters of the first layer
are smaller than its activations, so this layer has no memory target.
"""

import functools
import math

import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.targets import Target, print_targets
from examples.experiments.core.options import positive_float, positive_int
from keras_dynfilter.layers import RepositoryConv2D, repository_algorithms

KERNEL = 3
# Size, channels, filters (and as many base filters), strides, features.
LAYERS = (
    (32, 3, 64, 1, 64),
    (32, 64, 128, 2, 96),
    (16, 128, 256, 2, 128),
    (8, 256, 256, 2, 128),
)
OURS = ("ours", "ours, coefficients given")
MAX_RATIO_TO_STATIC = 1.6  # time relative to static
MIN_SPEEDUP = 10  # time of materialised, relative to ours
MAX_MEMORY_RATIO = 2.5  # memory relative to activations, coefficients and weights together


def parse(arguments=None):
    parser = new_parser("benchmarks.layers.repository_conv2d", __doc__)
    add = parser.add_argument
    add("--batch-size", type=positive_int, default=128, help="number of images in a call")
    add("--layer", type=int, action="append", choices=range(1, 5), help="only this layer (may be repeated)")
    add("--algorithm", default="auto", choices=repository_algorithms.ALGORITHMS, help="argument of RepositoryConv2D")
    add("--seconds", type=positive_float, default=3.0, help="approximate time for each measurement")
    add_json(parser, "outputs/repository.jsonl")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    rows = []
    with json_lines(args.json) as write:
        for number in args.layer or range(1, 5):
            for row in measure_layer(number, args):
                rows.append(row)
                write(row)
        print_targets(report_targets(rows))


def measure_layer(number, args):
    """Measures and prints the candidates of a layer. Returns their rows."""
    size, channels, filters, strides, features = LAYERS[number - 1]
    layer = RepositoryConv2D(filters, KERNEL, strides=strides, algorithm=args.algorithm, data_format="channels_last")
    shapes = [(args.batch_size, size, size, channels), (args.batch_size, features)]
    layer.build(shapes)
    tf.random.set_seed(0)
    images, vectors = (tf.random.normal(shape) for shape in shapes)
    outputs = math.prod(layer.compute_output_shape(shapes))
    megabytes = {
        "activations_mb": 4e-6 * (math.prod(shapes[0]) + outputs),
        "coefficients_mb": 4e-6 * args.batch_size * filters * filters,
        "weights_mb": 4e-6 * layer.count_params(),
        "filters_mb": 4e-6 * args.batch_size * KERNEL**2 * channels * filters,
    }
    algorithm = layer.chosen_algorithm(images.shape)
    sizes = ", ".join(f"{name.removesuffix('_mb')} {value:.0f} MB" for name, value in megabytes.items())
    shape = "x".join(map(str, shapes[0]))
    print(f"\nLayer {number}, {shape} to {filters} channels, stride {strides}; algorithm {algorithm}; {sizes}")
    whole, half = (
        calls(layer, images[:count], vectors[:count]) for count in (args.batch_size, max(1, args.batch_size // 2))
    )
    rows = []
    for name, ms in timing.in_turns(whole, args.seconds).items():
        peak, peak_of_half = timing.peak_mb(whole[name]), timing.peak_mb(half[name])
        row = dict(layer=number, batch=args.batch_size, candidate=name, algorithm=algorithm, ms=ms, peak_mb=peak)
        rows.append({**row, **megabytes, "peak_mb_of_half": peak_of_half})
        memory = "" if peak is None else f"{peak:>9.0f} MB, of half the batch {peak_of_half:.0f}"
        print(f"  {name:<26}{ms:>10.1f} ms{ms / rows[0]['ms']:>8.2f} of static{memory}", flush=True)
    return rows


def calls(layer, images, features):
    """Returns the candidates as functions without arguments, by name."""
    return {
        name: functools.partial(function, *operands)
        for name, (function, operands) in candidates(layer, images, features).items()
    }


def candidates(layer, images, features):
    """Returns the candidates by name: a function that computes the gradients, and its operands."""
    coefficients = layer.coefficients(features)
    kernel, bank = layer.repository.repository, layer.repository.repository
    convolve = getattr(repository_algorithms, layer.chosen_algorithm(images.shape))
    weights = layer.trainable_weights
    return {
        "static": (_gradients(lambda x: static(x, kernel, layer.geometry), [kernel]), [images]),
        "ours": (_gradients(lambda x, f: layer([x, f]), weights), [images, features]),
        "ours, coefficients given": (
            _gradients(lambda x, c: convolve(x, tf.convert_to_tensor(bank), c, layer.geometry), [bank]),
            [images, coefficients],
        ),
        "materialised": (
            _gradients(lambda x, f: grouped(x, layer.generated_filters(f), layer.geometry), weights),
            [images, features],
        ),
    }


def static(images, kernel, geometry):
    return tf.nn.conv2d(images, tf.convert_to_tensor(kernel), geometry.strides, "SAME")


def grouped(images, filters, geometry):
    """Applies filters per sample with one convolution in which every sample is a group of channels.

    The function pads before the convolution, because the gradients of grouped convolutions on CPUs do not support
    explicit padding.
    """
    batch, height, width, channels = images.shape
    kernel_h, kernel_w, _, count = filters.shape[1:]
    side_by_side = tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, height, width, batch * channels])
    kernel = tf.reshape(tf.transpose(filters, [1, 2, 3, 0, 4]), [kernel_h, kernel_w, channels, batch * count])
    padded = tf.pad(side_by_side, [[0, 0], *(list(pads) for pads in geometry.pads), [0, 0]])
    outputs = tf.nn.conv2d(padded, kernel, geometry.strides, "VALID")
    return tf.transpose(tf.reshape(outputs, [*outputs.shape[1:3], batch, count]), [2, 0, 1, 3])


def report_targets(rows):
    """Returns a line for each target."""
    ms = {(row["layer"], row["candidate"]): row["ms"] for row in rows}
    layers = sorted({row["layer"] for row in rows})
    lines = []
    for label, numbers in [*((f"layer {number}", [number]) for number in layers), ("all", layers)]:
        sums = {name: sum(ms[number, name] for number in numbers) for name in (*OURS, "static", "materialised")}
        for name in OURS:
            target = Target(f"{label}: {name} / static", at_most=MAX_RATIO_TO_STATIC)
            lines.append(target.report(sums[name] / sums["static"]))
        target = Target(f"{label}: materialised / ours", at_least=MIN_SPEEDUP)
        lines.append(target.report(sums["materialised"] / sums["ours"]))
    for row in rows:
        held = row["activations_mb"] + row["coefficients_mb"] + row["weights_mb"]
        if row["candidate"] == "ours" and row["peak_mb"] is not None and row["filters_mb"] > held:
            quantity = f"layer {row['layer']}: memory / activations, coefficients and weights"
            lines.append(Target(quantity, at_most=MAX_MEMORY_RATIO).report(row["peak_mb"] / held))
    return lines


def _gradients(function, weights):
    """Returns a function that computes the gradients of the mean square of the outputs, forward pass included."""

    @tf.function(autograph=False)
    def compute(*operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            loss = tf.reduce_mean(tf.square(function(*operands)))
        return tape.gradient(loss, [*operands, *weights])

    return compute


if __name__ == "__main__":
    main()
