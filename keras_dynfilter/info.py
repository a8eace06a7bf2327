# SPDX-License-Identifier: Apache-2.0
"""`python -m keras_dynfilter.info`: versions, which implementation each op runs on here, and why."""

import importlib.metadata
import platform

import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import _dispatch, _library

PACKAGES = ("keras", "numpy", "tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorflow-addons")
FAMILY = ("local_filter2d", "dynamic_depthwise_conv2d", "ddf2d")


def report():
    """The lines that the command prints."""
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

    name, source = _dispatch.requested()
    library = _library.load()
    native = name != "composite" and library.ops is not None
    lines.append("")
    lines.append(f"implementation   {name!r} is asked for by {source}")
    if native:
        why = "its kernels are loaded"
    elif library.ops is None:
        why = f"the compiled ops are not available: {library.reason}"
    else:
        why = f"{source} asks for it"
    for op in FAMILY:
        lines.append(f"  {op:<26} {'native' if native else 'composite'}, because {why}")
    kernel = "dynamic_depthwise_conv2d" if native else "composite"
    lines.append(
        f"  {'dynamic_conv2d':<26} {kernel} for one input or output channel, else one matrix product per sample"
    )
    kernel = "local_filter2d" if native else "composite"
    lines.append(f"  {'local_conv2d':<26} {kernel} for one input and output channel, else composed TensorFlow ops")
    if library.xla or not native:
        jit = "yes"
    else:
        jit = f"no, and layers say supports_jit=False: {library.xla_reason}"
    lines.append(f"  {'jit_compile':<26} {jit}")
    lines += [f"  {'library':<26} {path}" for path in library.paths]
    lines += [f"  {'note':<26} {note}" for note in library.notes]
    return lines


if __name__ == "__main__":
    print("\n".join(report()))
