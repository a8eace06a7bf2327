# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.repository_conv2d`: RepositoryConv2D beside a static convolution and beside filters made per sample.

The four layers of the CIFAR-10 network, forward and backward: the gradients by the images and by all weights, and for
generated filters by the features too. Candidates:

* static: a convolution with trained filters;
* ours: `RepositoryConv2D`, with the dense layer that makes the coefficients: in the last two layers that one alone has
  0.4 and 0.9 of the multiply-adds of the convolution. So ours with the coefficients given stands beside it;
* materialised: the filters of all samples are made, and one grouped convolution, of a group per sample, applies them.

Memory is what TensorFlow allocates at most, for the batch and for half of it. Activations are inputs and outputs of the
layer, coefficients and filters those of all samples: memory that is linear in activations, coefficients and weights
holds no filters. In the first layer, whose filters are smaller than its activations, that bar can tell nothing.
"""

import argparse
import functools
import json
import math
import pathlib

import tensorflow as tf

from benchmarks import timing
from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.layers import repository_algorithms as paths

KERNEL = 3
# Size, channels, filters (and as many base filters), strides, features.
LAYERS = (
    (32, 3, 64, 1, 64),
    (32, 64, 128, 2, 96),
    (16, 128, 256, 2, 128),
    (8, 256, 256, 2, 128),
)
OURS = ("ours", "ours, coefficients given")
MOST_OF_STATIC = 1.6
LEAST_OF_MATERIALISED = 10
MOST_OF_HELD = 2.5  # megabytes, over those of activations, coefficients and weights


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers.repository_conv2d", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--layer", type=int, action="append", choices=range(1, 5), help="only this one (repeatable)")
    parser.add_argument("--path", default="auto", choices=paths.PATHS, help="of RepositoryConv2D")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each timing, about")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/repository.jsonl", help="JSON lines go here")
    args = parser.parse_args()
    for name in ("batch_size", "seconds"):
        if getattr(args, name) <= 0:
            flag = name.replace("_", "-")
            parser.error(f"Expected --{flag} to be above zero. Received: {getattr(args, name)}")
    args.json.parent.mkdir(parents=True, exist_ok=True)

    rows = []
    for number in args.layer or range(1, 5):
        rows += measured(number, args)
    print("\nBars:")
    print("\n".join(f"  {line}" for line in bars(rows)))
    args.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"\nJSON lines: {args.json}")


def measured(number, args):
    """Measures and prints the candidates of a layer, forward + backward."""
    size, channels, filters, strides, features = LAYERS[number - 1]
    layer = RepositoryConv2D(filters, KERNEL, strides=strides, path=args.path, data_format="channels_last")
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
    path = layer.used_path(images.shape)
    print(
        f"\nLayer {number}, {'x'.join(map(str, shapes[0]))} to {filters} channels, stride {strides}; path {path}; "
        + ", ".join(f"{name.removesuffix('_mb')} {value:.0f} MB" for name, value in megabytes.items())
    )
    whole, half = (
        calls(layer, images[:count], vectors[:count]) for count in (args.batch_size, max(1, args.batch_size // 2))
    )
    rows = []
    for name, ms in timing.in_turns(whole, args.seconds).items():
        peak, peak_of_half = timing.peak_mb(whole[name]), timing.peak_mb(half[name])
        row = dict(layer=number, batch=args.batch_size, candidate=name, path=path, ms=ms, peak_mb=peak, **megabytes)
        rows.append({**row, "peak_mb_of_half": peak_of_half})
        memory = "" if peak is None else f"{peak:>9.0f} MB, of half the batch {peak_of_half:.0f}"
        print(f"  {name:<26}{ms:>10.1f} ms{ms / rows[0]['ms']:>8.2f} of static{memory}", flush=True)
    return rows


def calls(layer, images, features):
    """The candidates as functions of nothing."""
    found = candidates(layer, images, features)
    return {name: functools.partial(function, *operands) for name, (function, operands) in found.items()}


def candidates(layer, images, features):
    """`{name: (function, operands)}`, each of forward and backward."""
    coefficients = layer.coefficients(features)
    kernel, bank = layer.repository.repository, layer.repository.repository
    convolve = paths.shared if layer.used_path(images.shape) == "shared" else paths.direct
    weights = layer.trainable_weights
    return {
        "static": (_both(lambda x: static(x, kernel, layer.geometry), [kernel]), [images]),
        "ours": (_both(lambda x, f: layer([x, f]), weights), [images, features]),
        "ours, coefficients given": (
            _both(lambda x, c: convolve(x, tf.convert_to_tensor(bank), c, layer.geometry), [bank]),
            [images, coefficients],
        ),
        "materialised": (
            _both(lambda x, f: grouped(x, layer.generated_filters(f), layer.geometry), weights),
            [images, features],
        ),
    }


def static(images, kernel, geometry):
    return tf.nn.conv2d(images, tf.convert_to_tensor(kernel), geometry.strides, "SAME")


def grouped(images, filters, geometry):
    """One convolution in which every sample is a group of channels. Its gradients on CPUs want no explicit padding."""
    batch, height, width, channels = images.shape
    kernel_h, kernel_w, _, count = filters.shape[1:]
    side_by_side = tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, height, width, batch * channels])
    kernel = tf.reshape(tf.transpose(filters, [1, 2, 3, 0, 4]), [kernel_h, kernel_w, channels, batch * count])
    padded = tf.pad(side_by_side, [[0, 0], *(list(pads) for pads in geometry.pads), [0, 0]])
    outputs = tf.nn.conv2d(padded, kernel, geometry.strides, "VALID")
    return tf.transpose(tf.reshape(outputs, [*outputs.shape[1:3], batch, count]), [2, 0, 1, 3])


def bars(rows):
    """A line for each bar: what was found, and whether it is met."""
    ms = {(row["layer"], row["candidate"]): row["ms"] for row in rows}
    layers = sorted({row["layer"] for row in rows})
    lines = []
    for label, numbers in [*((f"layer {n}", [n]) for n in layers), ("all", layers)]:
        sums = {name: sum(ms[n, name] for n in numbers) for name in (*OURS, "static", "materialised")}
        for name in OURS:
            met = timing.verdict(sums[name] <= MOST_OF_STATIC * sums["static"])
            lines.append(
                f"{label}: {name}: {sums[name] / sums['static']:.2f} of static, at most {MOST_OF_STATIC}: {met}"
            )
        faster = sums["materialised"] / sums["ours"]
        met = timing.verdict(faster >= LEAST_OF_MATERIALISED)
        lines.append(f"{label}: {faster:.1f} times faster than materialised, at least {LEAST_OF_MATERIALISED}: {met}")
    for row in rows:
        held = row["activations_mb"] + row["coefficients_mb"] + row["weights_mb"]
        if row["candidate"] == "ours" and row["peak_mb"] is not None and row["filters_mb"] > held:
            met = timing.verdict(row["peak_mb"] <= MOST_OF_HELD * held)
            lines.append(
                f"layer {row['layer']}: {row['peak_mb'] / held:.1f} times the memory of activations, coefficients and "
                f"weights, at most {MOST_OF_HELD}: {met}"
            )
    return lines


def _both(function, weights):
    """Forward, and the gradients of the mean square by the operands and by the weights."""

    @tf.function(autograph=False)
    def both(*operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            loss = tf.reduce_mean(tf.square(function(*operands)))
        return tape.gradient(loss, [*operands, *weights])

    return both


if __name__ == "__main__":
    main()
