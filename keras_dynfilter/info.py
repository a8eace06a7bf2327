# SPDX-License-Identifier: Apache-2.0
"""`python -m keras_dynfilter.info` prints versions, the implementation that each op runs on here, and the reason."""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence

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
FILTER_OPS = ("local_filter2d", "dynamic_depthwise_conv2d", "ddf2d")
# Ops that mix channels have no kernels of their own.
MIXING_OPS = {
    "dynamic_conv2d": "as dynamic_depthwise_conv2d for one input or output channel, else one matrix product per sample",
    "local_conv2d": "as local_filter2d for one input and output channel, else one matrix product per position",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report. Returns 1 if an implementation is requested that is unknown or not available, else 0."""
    argparse.ArgumentParser(
        prog="python -m keras_dynfilter.info",
        description="Prints versions, which implementation each op runs on here, and why. "
        f"Builds the compiled ops if they are not built yet, unless {scope.VARIABLE}=composite.",
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
        ValueError: The environment variable names no implementation.
        RuntimeError: The native implementation is requested and not available.
    """
    return [*_versions(), "", *_implementation()]


def _versions():
    lines = [
        _row("keras_dynfilter", keras_dynfilter.__version__),
        _row("python", f"{platform.python_version()} on {platform.platform()}"),
        _row("tensorflow", tf.version.VERSION),
    ]
    for package in PACKAGES:
        try:
            lines.append(_row(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            lines.append(_row(package, "not installed"))
    gpus = tf.config.list_physical_devices("GPU")
    return [*lines, _row("GPUs", ", ".join(gpu.name for gpu in gpus) or "none")]


def _implementation():
    name, source = scope.requested()
    lines = [_row("implementation", f"{name} (requested by {source})")]
    for op in (*FILTER_OPS, "project_and_pool"):
        choice = backends.choose(op)
        lines.append(_row(op, f"{choice.name}, because {choice.reason}"))
    lines += [_row(op, text) for op, text in MIXING_OPS.items()]
    if name == "composite":  # The library stays unloaded.
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
