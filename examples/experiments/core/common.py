# SPDX-License-Identifier: Apache-2.0
"""What the experiments share: argument types, a loss, errors of predictions, the notebook of a run."""

import argparse
import math
import os
import pathlib
import platform
import shlex
import sys
import zlib

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import info

EPSILON = float(np.finfo(np.float32).eps)  # 1.19e-7; Keras's own is 1e-7
PIXELS = 64 * 64
DATA_DIR = "folder of the data, by default $KERAS_DYNFILTER_DATA; looked for in it"  # for --help


def positive_int(text):
    """Argument type: an integer above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer above zero, received {text!r}")
    return value


def positive_float(text):
    """Argument type: a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above zero, received {text!r}")
    return value


def share(text):
    """Argument type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, received {text!r}")
    return value


def seed(text):
    """Argument type: a seed."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**31 - 1:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**31 - 2, received {text!r}")
    return value


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
def clipped_bce(targets, predictions):
    """Binary cross-entropy of grey targets, in nats: of every pixel, averaged over the last axis.

    Predictions are clipped to `[EPSILON, 1 - EPSILON]`, as in the paper's code; its minimum is the entropy of the
    targets, which is not zero. Computed in float32.

    Args:
        targets: `[..., channels]`, in [0, 1].
        predictions: The same shape; need not lie in [0, 1].

    Returns:
        `[...]`, float32.
    """
    targets, predictions = tf.cast(targets, tf.float32), tf.cast(predictions, tf.float32)
    predictions = tf.clip_by_value(predictions, EPSILON, 1.0 - EPSILON)
    errors = targets * tf.math.log(predictions) + (1.0 - targets) * tf.math.log(1.0 - predictions)
    return -tf.reduce_mean(errors, axis=-1)


def squared_error(targets, predictions):
    """Squared difference of every pixel, averaged over the last axis; `[...]`, float32."""
    difference = tf.cast(targets, tf.float32) - tf.cast(predictions, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=-1)


def errors_per_image(error, predictors, batches, pixels=PIXELS):
    """Errors of predictions as the papers give them: the mean per pixel times the number of pixels of an image.

    Args:
        error: Function of targets and predictions that returns the error of every pixel, `[batch, ..., height, width]`.
        predictors: Functions of a batch of inputs that return predictions, by name.
        batches: Iterable of `(inputs, targets)`; targets `[batch, frames, height, width, 1]`, or without frames.
        pixels: The number that the mean per pixel is multiplied with, whatever the size of the images: 64 x 64.

    Returns:
        By name, `{"mean": error, "per_frame": [error of every frame], "images": number of images}`.
    """
    sums, images = {}, 0
    for inputs, targets in batches:
        images += int(np.prod(targets.shape[:-3]))
        for name, predict in predictors.items():
            values = np.asarray(error(targets, predict(inputs)), np.float64)
            per_frame = values.mean(axis=(-2, -1)).sum(axis=0)  # a number, or one per frame
            sums[name] = sums.get(name, 0.0) + np.atleast_1d(per_frame)
    figures = {}
    for name, frames in sums.items():
        per_frame = pixels * len(frames) / images * frames
        figures[name] = {"mean": float(per_frame.mean()), "per_frame": per_frame.tolist(), "images": images}
    return figures


def fingerprint(arrays):
    """What tells other data from the same ones, as for JSON: shape, dtype and checksum of arrays, by name."""
    found = {
        name: (array.shape, array.dtype, zlib.crc32(np.ascontiguousarray(array))) for name, array in arrays.items()
    }
    return {
        name: f"{' x '.join(map(str, shape))}, {kind}, CRC-32 {crc:08x}" for name, (shape, kind, crc) in found.items()
    }


def circumstances():
    """What has to be known beside the figures of a run: the command, the versions, the machine, what the ops run on."""
    versions = {"python": platform.python_version(), "keras-dynfilter": keras_dynfilter.__version__}
    for module in (tf, keras, np):
        versions[module.__name__] = module.__version__
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
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


def _processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
