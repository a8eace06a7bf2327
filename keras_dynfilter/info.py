# SPDX-License-Identifier: Apache-2.0
"""`python -m keras_dynfilter.info`: versions, which implementation each op runs on here, and why."""

import argparse
import importlib.metadata
import platform
import sys

import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops.backends import library as library_module
from keras_dynfilter.ops.backends import scope

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
FAMILY = ("local_filter2d", "dynamic_depthwise_conv2d", "ddf2d")


def main(arguments=None):
    """Returns the exit status: 1 if what is asked for is not an implementation, or cannot be had."""
    argparse.ArgumentParser(
        prog="python -m keras_dynfilter.info",
        description="Prints versions, which implementation each op runs on here, and why. "
        f"Builds the compiled ops if they are not there yet, unless {scope.VARIABLE}=composite.",
    ).parse_args(arguments)
    print("\n".join(_versions()))
    try:
        lines, wrong = _implementation()
    except ValueError as error:
        lines, wrong = [f"implementation   {error}"], True
    print("\n".join(["", *lines]))
    return int(wrong)


def report():
    """The lines that the command prints. Raises a ValueError if what is asked for is not an implementation."""
    return [*_versions(), "", *_implementation()[0]]


def _versions():
    lines = [
        f"keras_dynfilter  {keras_dynfilter.__version__}",
        f"python           {platform.python_version()} on {platform.platform()}",
        f"tensorflow       {tf.version.VERSION}",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package:<16} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{package:<16} not installed")
    gpus = tf.config.list_physical_devices("GPU")
    lines.append(f"GPUs             {', '.join(gpu.name for gpu in gpus) or 'none'}")
    return lines


def _implementation():
    """Lines on what the ops run on, and whether they cannot run at all."""
    name, source = scope.requested()
    lines = [f"implementation   {name!r} is asked for by {source}"]
    if name == "composite":
        return lines + _ops("composite", f"{source} asks for it") + [_row("jit_compile", "yes")], False
    library = library_module.load()
    missing = library.ops is None
    if missing:
        kernel = "no implementation" if name == "native" else "composite"
        why = f"the compiled ops are not available: {library.reason}"
    elif name != "native" and library_module.lacks_gpu_kernels():
        kernel, why = "composite", "there is a GPU, and the library has no CUDA kernels"
    else:
        kernel, why = "native", "its kernels are loaded"
    lines += _ops(kernel, why)
    if kernel == "composite" or library.xla:
        lines.append(_row("jit_compile", "yes"))
    elif kernel == "native":
        lines.append(_row("jit_compile", f"no, and layers say supports_jit=False: {library.xla_reason}"))
    if not missing:
        lines.append(_row("GPU kernels", "yes" if library.cuda else "no: the library was built without CUDA"))
    lines += [_row("library", path) for path in library.paths]
    lines += [_row("note", note) for note in library.notes]
    return lines, missing and name == "native"


def _ops(kernel, why):
    lines = [_row(op, f"{kernel}, because {why}") for op in FAMILY]
    single = {"dynamic_conv2d": "dynamic_depthwise_conv2d", "local_conv2d": "local_filter2d"}
    if kernel != "native":
        single = dict.fromkeys(single, kernel)
    return [
        *lines,
        _row(
            "dynamic_conv2d",
            f"{single['dynamic_conv2d']} for one input or output channel, else one matrix product per sample",
        ),
        _row(
            "local_conv2d", f"{single['local_conv2d']} for one input and output channel, else composed TensorFlow ops"
        ),
    ]


def _row(name, text):
    return f"  {name:<26} {text}"


if __name__ == "__main__":
    sys.exit(main())
