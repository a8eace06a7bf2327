# SPDX-License-Identifier: Apache-2.0
"""Parses the arguments of the Python runners, compares their results with Keras and times the calls. Needs NumPy only.

Frames are passed one at a time, as a camera would deliver them.
"""

import argparse
import importlib.util
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

ABSENT = ("tensorflow", "keras", "keras_dynfilter")  # packages that a runner must not need


def main(doc: str, load: Callable, allowed: tuple[str, ...] = ()) -> None:
    """Runs a runner and prints its result as one line of JSON. The exit status is 1 if the result differs from Keras.

    Args:
        doc: What the runner does, for `--help`.
        load: Function of the parsed arguments that returns the name of the runtime and a function from an input
            `[1, ...]` to the output.
        allowed: Packages of `ABSENT` that the runner needs.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    parser.add_argument("model", help="the exported file or folder")
    parser.add_argument("inputs", type=pathlib.Path, help=".npy file with the inputs, [calls, ...]")
    parser.add_argument("expected", type=pathlib.Path, help=".npy file with the outputs of Keras, [calls, ...]")
    parser.add_argument("--output", required=True, help="name of the output to compare")
    parser.add_argument("--threads", type=int, default=2, help="threads of the runtime (default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest error, relative to the largest value (default: 1e-4)"
    )
    parser.add_argument("--library", help="onnxruntime: path of libkeras_dynfilter_ort.so")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu", help="onnxruntime: execution provider")
    args = parser.parse_args()
    importable = [name for name in ABSENT if name not in allowed and importlib.util.find_spec(name) is not None]
    runtime, call = load(args)
    inputs, expected = np.load(args.inputs), np.load(args.expected)
    error, milliseconds = measure(call, inputs, expected)
    passed = bool(error <= args.tolerance * np.abs(expected).max())
    result = {"runtime": runtime, "ms": milliseconds, "max_abs": error, "passed": passed, "importable": importable}
    print(json.dumps(result))
    sys.exit(0 if passed else 1)


def measure(call: Callable, inputs: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Returns the largest absolute error of all calls, and the median duration of a call in milliseconds."""
    if len(inputs) != len(expected) or not len(inputs):
        counts = f"{len(expected)} results and {len(inputs)} inputs"
        raise ValueError(f"Expected as many results as inputs, one or more. Received: {counts}")
    call(inputs[:1])  # not timed: runtimes allocate their memory in the first call
    error, times = 0.0, []
    for index in range(len(inputs)):
        start = time.perf_counter()
        output = call(inputs[index : index + 1])
        times.append(1e3 * (time.perf_counter() - start))
        if output.shape != expected[index : index + 1].shape:
            raise ValueError(f"Expected an output {expected[index : index + 1].shape}. Received: {output.shape}")
        # Unlike max(), np.maximum keeps a NaN.
        error = float(np.maximum(error, np.abs(output - expected[index]).max()))
    return error, statistics.median(times)
