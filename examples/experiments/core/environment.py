# SPDX-License-Identifier: Apache-2.0
"""Describes the circumstances of an experiment, which `results.json` records: command, versions, machine."""

import os
import pathlib
import platform
import shlex
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import info


def describe() -> dict[str, Any]:
    """Returns the command, the versions, the machine, and the report of `keras_dynfilter.info`."""
    versions = {"python": platform.python_version(), "keras-dynfilter": keras_dynfilter.__version__}
    for module in (tf, keras, np):
        versions[module.__name__] = module.__version__
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "versions": versions,
        "machine": machine(),
        "installation": info.report(),
    }


def machine() -> dict[str, Any]:
    """Returns the system, the processor, the number of cores that this process may use, and the GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": cores(),
        "gpus": [detail.get("device_name", "unknown") for detail in details],
    }


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor_name() -> str:
    """Returns the model name of the processor."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
