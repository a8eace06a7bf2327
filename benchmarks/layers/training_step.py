# SPDX-License-Identifier: Apache-2.0
"""Measures the time of a training step of the moving-MNIST network, and the share of the local filtering in it.

The benchmark trains one network with the compiled ops and with composite TensorFlow ops, each with and without XLA. It
prints the median milliseconds of a step; the seconds until the first step is done, including tracing and compiling; and
the share of the op: the time of the op alone, forward and backward on tensors of the network's sizes, once per
predicted frame, relative to the time of a step.

The last line compares the time to make a batch, which happens in parallel to the training, with the time of a step. If
it takes more than 100 % of a step, the training waits for its data.
"""

import time

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter as kdf
from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.ops import cases
from examples.experiments import data
from examples.experiments.core.options import positive_float, positive_int
from keras_dynfilter import models


def parse(arguments=None):
    parser = new_parser("benchmarks.layers.training_step", __doc__)
    add = parser.add_argument
    add("--size", type=positive_int, default=64, help="height and width of a frame")
    add("--width", type=positive_float, default=1.0, help="factor of the channel counts of the network")
    add("--batch-size", type=positive_int, default=4, help="number of videos in a step")
    add("--frames", type=positive_int, default=10, help="number of given frames, and of predicted frames")
    add("--kernel-size", type=positive_int, default=9, help="height and width of the filters, an odd number")
    add_json(parser, "outputs/training_step.jsonl")
    args = parser.parse_args(arguments)
    if args.kernel_size % 2 == 0:
        parser.error(f"Expected --kernel-size to be odd. Received: {args.kernel_size}")
    return args


def main(arguments=None):
    args = parse(arguments)
    rows = [measure(args, name, jit) for name in ("native", "composite") for jit in (False, True)]
    fastest = min(row["ms"] for row in rows)
    print(f"{'':<18}{'ms':>9}{'of fastest':>12}{'first step, s':>15}{'op, ms':>9}{'share':>8}")
    for row in rows:
        print(
            f"{row['candidate']:<18}{row['ms']:>9.0f}{row['ms'] / fastest:>11.2f}x{row['first_s']:>15.1f}"
            f"{row['op_ms']:>9.1f}{row['op_ms'] / row['ms']:>8.1%}"
        )
    ms = batch_ms(args)
    print(f"A batch of {2 * args.frames} frames takes {ms:.1f} ms to make, {ms / fastest:.1%} of the fastest step.")
    with json_lines(args.json) as write:
        for row in rows:
            write({**row, **vars(args), "json": str(args.json), "batch_ms": ms})


def measure(args, implementation, jit):
    """Measures a training step with an implementation of the ops, and the op alone. Returns the row of times."""
    shape = (args.size, args.size, 1)
    filtered = cases.local_filter((args.batch_size, *shape), args.kernel_size, normalization="softmax")
    with kdf.implementation(implementation):
        first, ms = _step(args, shape, jit)
        operands = filtered.operands()
        op = cases.with_gradients(tf.function(filtered.apply, jit_compile=jit), operands, xla=jit)
        op_ms = args.frames * timing.median_ms(lambda: op(*operands))
    return {"candidate": f"{implementation}{', XLA' if jit else ''}", "ms": ms, "first_s": first, "op_ms": op_ms}


def batch_ms(args, seconds=3.0):
    """Returns the mean milliseconds that the data generator needs for a batch, on all cores without other work."""
    digit = max(1, 28 * args.size // 64)
    digits = np.random.default_rng(0).integers(0, 256, (10_000, digit, digit), np.uint8)
    batches = iter(data.moving_digits(digits, args.batch_size, 10**9, frames=2 * args.frames, size=args.size))
    for _ in range(16):  # some batches are prefetched: skip them
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)
        count += 1
    return 1e3 * (time.perf_counter() - begin) / count


def _step(args, shape, jit):
    """Returns the seconds until the first training step is done, and the median milliseconds of further steps."""
    model = models.dfn_moving_mnist(shape, args.frames, args.frames, args.kernel_size, args.width)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    frames = tf.random.stateless_uniform((args.batch_size, args.frames, *shape), (0, 0))

    @tf.function(jit_compile=jit)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(inputs) - targets))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    begin = time.perf_counter()
    step(frames, frames).numpy()
    first = time.perf_counter() - begin
    return first, timing.median_ms(lambda: step(frames, frames).numpy(), budget=5, min_calls=3)


if __name__ == "__main__":
    main()
