# SPDX-License-Identifier: Apache-2.0
"""What the experiments share: argument types, the notebook of a run, training that can be taken up again."""

import argparse
import json
import os
import pathlib
import platform
import shlex
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import info


def positive_int(text):
    """Argument type: an integer above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer above zero, received {text!r}")
    return value


def write_json(path, content):
    """Writes `content` at once: a reader never sees half a file."""
    path = pathlib.Path(path)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def circumstances():
    """What has to be known beside the figures of a run: the command, the versions, the machine, what the ops run on."""
    versions = {"python": platform.python_version(), "keras-dynfilter": keras_dynfilter.__version__}
    for module in (tf, keras, np):
        versions[module.__name__] = module.__version__
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions,
        "machine": machine(),
        "installation": info.report(),
    }


def machine():
    """The kind of machine: processor, number of cores that may be used, accelerators."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [detail.get("device_name", "unknown") for detail in details],
    }


def train(model, path, triples, epochs, steps, callbacks=(), resume=False):
    """Trains `model` and saves it at `path` after every epoch.

    Args:
        model: A compiled model.
        path: File name that ends in `.keras`.
        triples: Function of a start step that returns a data set of the steps from there on.
        epochs: Number of epochs.
        steps: Steps of an epoch.
        callbacks: Keras callbacks.
        resume: Continue with the model that lies at `path`, if there is one.

    Returns:
        `(model, seconds)`: the trained model and the time that this call trained for.
    """
    start = 0
    if resume and pathlib.Path(path).is_file():
        model = keras.models.load_model(path)
        start = int(model.optimizer.iterations)
        print(f"{path}: continues after step {start} of {epochs * steps}.")
    elif resume:
        print(f"{path}: not there, so nothing is resumed; starts at step 0 of {epochs * steps}.")
    began = time.perf_counter()
    if start < epochs * steps:
        model.fit(
            triples(start),
            initial_epoch=start // steps,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[*callbacks, keras.callbacks.ModelCheckpoint(str(path))],
            shuffle=False,
            verbose=1 if sys.stdout.isatty() else 2,
        )
    return model, time.perf_counter() - began


def _processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
