# SPDX-License-Identifier: Apache-2.0
"""An experiment of milliseconds, which tests run, and kill, in a process of its own.

TOY_KILL_AT=EVENT:NUMBER kills the process, without a warning, at the event of this number (from 1). The events:

    step     a training step has ended
    write    half of a checkpoint is written
    rename   a checkpoint is written, and has not got its name yet
    renamed  a checkpoint has got its name
"""

import argparse
import functools
import os
import signal
import sys


def build(dropout=0.0):
    import keras

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Conv2D(1, 3, padding="same", dtype="float32"),
        ],
        name="toy",
    )


def batches(first, end, batch_size=4):
    """Images, and the same moved by a row; a step depends on its number alone."""
    import tensorflow as tf

    def make(step):
        images = tf.random.stateless_uniform([batch_size, 8, 8, 1], tf.stack([step, 0]))
        return images, tf.roll(images, 1, 1)

    return tf.data.Dataset.range(first, end).map(make)


def main(arguments):
    from examples.experiments.core import common, harness

    parser = argparse.ArgumentParser()
    parser.add_argument("--dropout", type=float, default=0.0)
    harness.add_options(parser, "toy")
    harness.add_training_options(parser)
    parser.set_defaults(iterations=20, batch_size=4, learning_rate=0.01, schedule="cosine", checkpoint_every=5)
    run = harness.begin(harness.parse(parser, arguments, {}))
    network = functools.partial(build, run.args.dropout)
    networks = {"toy": network, "baseline": network}
    trained = harness.train_networks(run, networks, common.squared_error, batches)
    if run.chief:
        harness.write_results(run, {"training": harness.training_figures(trained["toy"])})


def kill_at(moment):
    """Arranges that this process is killed at a moment, `EVENT:NUMBER` as in the docstring of this module."""
    from examples.experiments.core import checkpoint, training

    event, number = moment.split(":")
    remaining = int(number)

    def happened():
        nonlocal remaining
        remaining -= 1
        if not remaining:
            os.kill(os.getpid(), signal.SIGKILL)

    def step_ended(self, batch, logs=None, original=training.Keeper.on_train_batch_end):
        original(self, batch, logs)
        happened()

    def write_half(file, original=checkpoint.np.savez, **arrays):
        start = file.tell()
        original(file, **arrays)
        complete = file.tell()
        file.truncate(start + (complete - start) // 2)
        file.flush()
        happened()
        file.seek(start)
        original(file, **arrays)

    def rename(part, path, original=os.replace):
        of_checkpoint = str(path).endswith(".checkpoint")
        if event == "rename" and of_checkpoint:
            happened()
        original(part, path)
        if event == "renamed" and of_checkpoint:
            happened()

    if event == "step":
        training.Keeper.on_train_batch_end = step_ended
    elif event == "write":
        checkpoint.np.savez = write_half
    else:
        os.replace = rename


def with_devices(arguments):
    """`--devices N` as the first argument divides the processor into so many devices."""
    if arguments[:1] == ["--devices"]:
        import tensorflow as tf

        devices = [tf.config.LogicalDeviceConfiguration()] * int(arguments[1])
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        arguments = arguments[2:]
    return arguments


if __name__ == "__main__":
    if "TOY_KILL_AT" in os.environ:
        kill_at(os.environ["TOY_KILL_AT"])
    main(with_devices(sys.argv[1:]))
