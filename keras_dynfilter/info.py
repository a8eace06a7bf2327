# SPDX-License-Identifier: Apache-2.0
"""Prints versions, the implementation that each op runs on, and the reason: `python -m keras_dynfilter.info`."""

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence

import keras
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import backends
from keras_dynfilter.ops.backends import library, scope

PACKAGES = (
    "keras",
    "numpy",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "tensorflow-addons",
)
# Ops that mix channels have no compiled kernels.
MIXING_OPS = {
    "dynamic_conv2d": "runs as dynamic_depthwise_conv2d for odd windows and one input or output channel, "
    "otherwise one matrix product per sample",
    "local_conv2d": "runs as local_filter2d for one input and one output channel, "
    "otherwise one matrix product per position",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report. Returns 1 if the requested implementation is unknown or not available, otherwise 0."""
    argparse.ArgumentParser(
        prog="python -m keras_dynfilter.info",
        description="Print versions, the implementation that each op runs on in this environment, and the reason. "
        f"Unless {scope.VARIABLE}=composite, the compiled ops are built if necessary.",
    ).parse_args(arguments)
    print("\n".join([*_versions(), ""]))
    try:
        lines, status = _implementation(), 0
    except (ValueError, RuntimeError) as error:
        lines, status = [_row("implementation", f"none: {error}")], 1
    print("\n".join(lines))
    return status


def report() -> list[str]:
    """Returns the lines that the command prints.

    Raises:
        ValueError: The value of the environment variable is not an implementation.
        RuntimeError: The native implementation is requested and not available.
    """
    return [*_versions(), "", *_implementation()]


def _versions():
    lines = [
        _row("keras_dynfilter", keras_dynfilter.__version__),
        _row("python", f"{platform.python_version()} on {platform.platform()}"),
        _row("tensorflow", tf.version.VERSION),
        _row("keras backend", keras.backend.backend()),
    ]
    for package in PACKAGES:
        try:
            lines.append(_row(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            lines.append(_row(package, "not installed"))
    gpus = tf.config.list_physical_devices("GPU")
    lines.append(_row("GPUs", ", ".join(gpu.name for gpu in gpus) or "none"))
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("KERAS_DYNFILTER_"))
    return [*lines, *(_row("environment", f"{name}={value}") for name, value in settings)]


def _implementation():
    name, source = scope.requested()
    lines = [_row("implementation", f"{name}, set by {source}")]
    for op in backends.OPS:
        choice = backends.choose(op)
        lines.append(_row(op, f"{choice.name}, because {choice.reason}"))
    lines += [_row(op, text) for op, text in MIXING_OPS.items()]
    if name == "composite":  # The library is not loaded.
        return [*lines, _row("jit_compile", "yes")]
    loaded = library.load()
    jit = "yes" if backends.supports_jit() else f"no, layers have supports_jit=False: {loaded.xla_reason}"
    lines.append(_row("jit_compile", jit))
    if loaded.ops is not None:
        lines.append(_row("CUDA kernels", "yes" if loaded.cuda else "no, the library was built without CUDA"))
    lines += [_row("library", path) for path in loaded.paths]
    lines += [_row("note", note) for note in loaded.notes]
    return lines


def _row(name, text):
    return f"{name:<25} {text}"


if __name__ == "__main__":
    sys.exit(main())
