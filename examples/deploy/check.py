# SPDX-License-Identifier: Apache-2.0
"""What the Python runners share: their arguments, the comparison with Keras' result, the time of a call. Needs NumPy.

Frames go through one by one, as they would come from a camera.
"""

import argparse
import importlib.util
import json
import pathlib
import statistics
import sys
import time

import numpy as np

FOREIGN = ("tensorflow", "keras", "keras_dynfilter")


def main(doc, load, allowed=()):
    """Runs a runner and prints what it found as one line of JSON. The exit status is 1 if the result is not Keras'.

    Args:
        doc: What the runner is, for `--help`.
        load: Function of the arguments that returns what runs the model, as text, and a function of an array `[1, ...]`
            that returns the output.
        allowed: Packages of `FOREIGN` that the runner is about.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    parser.add_argument("model", help="the exported file or folder")
    parser.add_argument("inputs", type=pathlib.Path, help=".npy file of inputs, [calls, ...]")
    parser.add_argument("expected", type=pathlib.Path, help=".npy file of Keras' results, [calls, ...]")
    parser.add_argument("--output", required=True, help="name of the output that is compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the error, relative to the largest value")
    parser.add_argument("--library", help="libkeras_dynfilter_ort.so, for onnxruntime")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu", help="of onnxruntime")
    args = parser.parse_args()
    present = [name for name in FOREIGN if name not in allowed and importlib.util.find_spec(name) is not None]
    runtime, call = load(args)
    inputs, expected = np.load(args.inputs), np.load(args.expected)
    error, milliseconds = measured(call, inputs, expected)
    passed = bool(error <= args.tolerance * np.abs(expected).max())
    found = {"runtime": runtime, "ms": milliseconds, "max_abs": error, "passed": passed, "foreign": present}
    print(json.dumps(found))
    sys.exit(0 if passed else 1)


def measured(call, inputs, expected):
    """Largest absolute error of all calls, and the median milliseconds of one."""
    if len(inputs) != len(expected) or not len(inputs):
        raise ValueError(f"Expected as many results as inputs. Received: {len(expected)} and {len(inputs)}")
    call(inputs[:1])  # not timed: runtimes take their memory here
    error, times = 0.0, []
    for index in range(len(inputs)):
        start = time.perf_counter()
        output = call(inputs[index : index + 1])
        times.append(1e3 * (time.perf_counter() - start))
        if output.shape != expected[index : index + 1].shape:
            raise ValueError(f"Expected an output {expected[index : index + 1].shape}. Received: {output.shape}")
        # A NaN must not pass for the smaller of two numbers.
        error = float(np.maximum(error, np.abs(output - expected[index]).max()))
    return error, statistics.median(times)
