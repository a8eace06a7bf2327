# SPDX-License-Identifier: Apache-2.0
"""Trains a tiny network in a process of its own, which tests start and kill.

TOY_KILL_AT=EVENT:NUMBER kills the process with SIGKILL at the NUMBER-th EVENT, counted from 1. From such a moment on,
TOY_FULL_AT=EVENT:NUMBER makes the operating system refuse to write more than a few bytes into a file, as if the disk
was full. The events:

    step     a training step has ended
    write    half of a checkpoint is written
    rename   a checkpoint is complete, but still has a temporary name
    renamed  a checkpoint has its final name

TOY_NAN_AT=NUMBER makes the data of the NUMBER-th step, counted from 1, NaN.
"""

import functools
import os
import resource
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


def batches(first, end, batch_size=4, bad_step=0, bad_value=float("nan")):
    """Returns images, and the images moved by a row as targets. The data of a step depend only on its number.

    One value of the last image of the step `bad_step`, counted from 1, is `bad_value`.
    """
    import tensorflow as tf

    def make(step):
        images = tf.random.stateless_uniform([batch_size, 8, 8, 1], tf.stack([step, 0]))
        last_pixel = tf.one_hot(tf.size(images) - 1, tf.size(images), on_value=True, off_value=False)
        bad = tf.reshape(last_pixel, tf.shape(images)) & (step + 1 == bad_step)
        images = tf.where(bad, bad_value, images)
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
    data = functools.partial(batches, bad_step=int(os.environ.get("TOY_NAN_AT", 0)))
    trained = training.train_networks(experiment, networks, losses.squared_error, data)
    if experiment.chief:
        run.write_results(experiment, {"training": run.training_figures(trained["toy"])})
    return 0


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def act_at(moment, act):
    """Calls `act` at `EVENT:NUMBER`, which the docstring of this module describes."""
    from examples.experiments.core import checkpoint, training

    event, number = moment.split(":")
    remaining = int(number)

    def count_down():
        nonlocal remaining
        remaining -= 1
        if not remaining:
            act()

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
    from examples.experiments.core import run

    for variable, act in (("TOY_KILL_AT", kill), ("TOY_FULL_AT", fill_disk)):
        if variable in os.environ:
            act_at(os.environ[variable], act)
    run.run_script(lambda: main(with_devices(sys.argv[1:])))
