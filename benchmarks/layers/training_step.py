# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.training_step`: a training step of the moving-MNIST network, and how much of it our op takes.

The same network, data and optimizer on the compiled ops and on composed TensorFlow ops, plain and under XLA: median
milliseconds of a step and seconds until the first one is done (tracing and compiling). The share of the op is its own
time, forward and backward, on tensors of the network's sizes, once per predicted frame, over that of the step.

Below stands how long the batches take to make, which goes on beside the training: above 100 % of a step, the training
waits for its data.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter as kdf
from benchmarks import timing
from benchmarks.ops import cases
from examples.experiments import data
from keras_dynfilter import models


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers.training_step", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--size", type=int, default=64, help="rows and columns of a frame")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the channel counts of the network")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--frames", type=int, default=10, help="frames given, and as many predicted")
    parser.add_argument("--kernel-size", type=int, default=9)
    parser.add_argument("--json", type=pathlib.Path, default="outputs/training_step.jsonl", help="JSON lines go here")
    args = parser.parse_args()
    for name, value in vars(args).items():
        if name != "json" and value <= 0:
            parser.error(f"Expected --{name.replace('_', '-')} to be above zero. Received: {value}")
    if args.kernel_size % 2 == 0:
        parser.error(f"Expected --kernel-size to be odd. Received: {args.kernel_size}")
    args.json.parent.mkdir(parents=True, exist_ok=True)

    rows = [measured(args, kind, jit) for kind in ("native", "composite") for jit in (False, True)]
    fastest = min(rows, key=lambda row: row["ms"])["ms"]
    print(f"{'':<18}{'ms':>9}{'of fastest':>12}{'first step, s':>15}{'op, ms':>9}{'share':>8}")
    for row in rows:
        print(
            f"{row['candidate']:<18}{row['ms']:>9.0f}{row['ms'] / fastest:>11.2f}x{row['first_s']:>15.1f}"
            f"{row['op_ms']:>9.1f}{row['op_ms'] / row['ms']:>8.1%}"
        )
    ms = batch_ms(args)
    print(f"A batch of {2 * args.frames} frames takes {ms:.1f} ms to make, {ms / fastest:.1%} of the fastest step.")
    common = {**vars(args), "json": str(args.json), "batch_ms": ms}
    args.json.write_text("".join(json.dumps({**row, **common}) + "\n" for row in rows))
    print(f"\nJSON lines: {args.json}")


def measured(args, kind, jit):
    """Times of a training step on the ops of `kind`, and of the op alone."""
    shape = (args.size, args.size, 1)
    filtered = cases.local_filter((args.batch_size, *shape), args.kernel_size, normalization="softmax")
    with kdf.implementation(kind):
        first, ms = _step(args, shape, jit)
        operands = filtered.operands()
        op = cases.with_gradients(tf.function(filtered.apply, jit_compile=jit), operands, xla=jit)
        op_ms = args.frames * timing.median_ms(lambda: op(*operands))
    return {"candidate": f"{kind}{', XLA' if jit else ''}", "ms": ms, "first_s": first, "op_ms": op_ms}


def batch_ms(args, seconds=3.0):
    """Mean milliseconds between the batches of the data generator, on all cores and with nothing beside it."""
    digit = max(1, 28 * args.size // 64)
    digits = np.random.default_rng(0).integers(0, 256, (10_000, digit, digit), np.uint8)
    batches = iter(data.moving_digits(digits, args.batch_size, 10**9, frames=2 * args.frames, size=args.size))
    for _ in range(16):  # what is made ahead is not free
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)
        count += 1
    return 1e3 * (time.perf_counter() - begin) / count


def _step(args, shape, jit):
    """Seconds until the first training step is done, and median milliseconds of those that follow."""
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
    return first, timing.median_ms(lambda: step(frames, frames).numpy(), budget=5, least=3)


if __name__ == "__main__":
    main()
