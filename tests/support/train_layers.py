# SPDX-License-Identifier: Apache-2.0
"""Trains a model of `DDF2D` and `DynamicLocalFilter2D` in a process of its own, and prints the losses as JSON.

    python tests/support/train_layers.py one|mirrored|workers|fit|data-parallel

`workers` needs TF_CONFIG. The training loop is the one of docs/guide/distribution.md; `fit` and `data-parallel` call
the method `fit` of Keras, the latter with `keras.distribution.DataParallel` on two devices.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.layers import DDF2D, DynamicLocalFilter2D
from tests.support import pages

STEPS = 12


def make_model():
    images = keras.Input((8, 8, 3))
    x = DDF2D(3)(images)
    x = keras.layers.Conv2D(4, 1, activation="relu")(x)
    x = DynamicLocalFilter2D(3, normalization="softmax", generator=keras.layers.Conv2D(9, 3, padding="same"))(x)
    return keras.Model(images, keras.layers.Conv2D(1, 1)(x))


def make_strategy(name):
    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "one":
        return tf.distribute.get_strategy()
    make_two_devices()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make_two_devices():
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def documented_loop():
    """Returns the names that the training loop in the documentation defines."""
    (block,) = [
        block for block in pages.blocks(pages.DOCS / "guide/distribution.md", "python") if "def train(" in block.text
    ]
    names = {"__name__": "page"}
    exec(block.text, names)
    return names


def fit(data, data_parallel):
    if data_parallel:
        make_two_devices()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]))
    keras.utils.set_random_seed(0)
    model = make_model()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model.fit(data(), epochs=STEPS, steps_per_epoch=1, verbose=0).history["loss"]


def train(data, name):
    strategy = make_strategy(name)
    keras.utils.set_random_seed(0)
    return documented_loop()["train"](strategy, make_model, data(), steps=STEPS, batch_size=8)


def make_data():
    images = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
    return tf.data.Dataset.from_tensor_slices((images, images[..., :1])).batch(8, drop_remainder=True).repeat()


def main(name):
    if name in ("fit", "data-parallel"):
        losses = fit(make_data, name == "data-parallel")
    else:
        losses = train(make_data, name)
    print(json.dumps(losses), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
