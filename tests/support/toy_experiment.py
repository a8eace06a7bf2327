# SPDX-License-Identifier: Apache-2.0
"""An experiment of milliseconds on the harness of the examples, to be run, and killed, in a process of its own."""

import argparse
import functools
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


def with_devices(arguments):
    """`--devices N` as the first argument divides the processor into so many devices."""
    if arguments[:1] == ["--devices"]:
        import tensorflow as tf

        devices = [tf.config.LogicalDeviceConfiguration()] * int(arguments[1])
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        arguments = arguments[2:]
    return arguments


if __name__ == "__main__":
    main(with_devices(sys.argv[1:]))
