# SPDX-License-Identifier: Apache-2.0
"""Trains a tiny network in a process of its own, which tests start and kill.

TOY_KILL_AT=EVENT:NUMBER kills the process with SIGKILL at the NUMBER-th EVENT, counted from 1. The events:

    step     a training step has ended
    write    half of a checkpoint is written
    rename   a checkpoint is complete, but still has a temporary name
    renamed  a checkpoint has its final name
"""

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
    """Returns images, and the images moved by a row as targets. The data of a step depend only on its number."""
    import tensorflow as tf

    def make(step):
        images = tf.random.stateless_uniform([batch_size, 8, 8, 1], tf.stack([step, 0]))
        return images, tf.roll(images, 1, 1)

    return tf.data.Dataset.range(first, end).map(make)


def main(arguments):
    from examples.experiments.core import losses, options, run, training

    parser = options.new_parser(__doc__)
    parser.add_argument("--dropout", type=float, default=0.0)
    options.add_run_options(parser, "toy")
    options.add_training_options(parser)
    parser.set_defaults(iterations=20, batch_size=4, learning_rate=0.01, schedule="cosine", checkpoint_every=5)
    experiment = run.begin(options.parse(parser, arguments, {}))
    network = functools.partial(build, experiment.args.dropout)
    networks = {"toy": network, "baseline": network}
    trained = training.train_networks(experiment, networks, losses.squared_error, batches)
    if experiment.chief:
        run.write_results(experiment, {"training": run.training_figures(trained["toy"])})


def kill_at(moment):
    """Makes this process kill itself at `EVENT:NUMBER`, which the docstring of this module describes."""
    from examples.experiments.core import checkpoint, training

    event, number = moment.split(":")
    remaining = int(number)

    def count_down():
        nonlocal remaining
        remaining -= 1
        if not remaining:
            os.kill(os.getpid(), signal.SIGKILL)

    def step_ended(self, batch, logs=None, original=training.Checkpointer.on_train_batch_end):
        original(self, batch, logs)
        count_down()

    def write_half(file, original=checkpoint.np.savez, **arrays):
        start = file.tell()
        original(file, **arrays)
        complete = file.tell()
        file.truncate(start + (complete - start) // 2)
        file.flush()
        count_down()
        file.seek(start)
        original(file, **arrays)

    def rename(temporary, path, original=os.replace):
        is_checkpoint = str(path).endswith(".checkpoint")
        if event == "rename" and is_checkpoint:
            count_down()
        original(temporary, path)
        if event == "renamed" and is_checkpoint:
            count_down()

    if event == "step":
        training.Checkpointer.on_train_batch_end = step_ended
    elif event == "write":
        checkpoint.np.savez = write_half
    else:
        os.replace = rename


def with_devices(arguments):
    """Divides the CPU into N logical devices if the arguments start with `--devices N`. Returns the other arguments."""
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
