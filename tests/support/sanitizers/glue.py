# SPDX-License-Identifier: Apache-2.0
"""Builds the libraries for TensorFlow, XLA and onnxruntime with AddressSanitizer and UBSan, and runs tests with them.

The hosts themselves are not instrumented, so ThreadSanitizer cannot run here; `kernels.py` runs it on the thread pools.
"""

import hashlib
import os
import pathlib
import subprocess
import sys

from tests.support.paths import ROOT

HERE = pathlib.Path(__file__).resolve().parent
COMPILER = HERE / "cxx"
# The keys of the cache do not contain the flags that the compiler adds.
CACHE = ROOT / "build" / f"sanitize-{hashlib.sha256(COMPILER.read_bytes()).hexdigest()[:8]}"


def environment(preloaded):
    """Returns the environment variables of a build (not `preloaded`) or of a test run (`preloaded`)."""
    variables = {
        **os.environ,
        "CXX": str(COMPILER),
        "KERAS_DYNFILTER_CACHE": str(CACHE),
        "KERAS_DYNFILTER_CUDA": "0",
        "PYTHONPATH": str(ROOT),
        "KERAS_DYNFILTER_REQUIRE_NATIVE": "1",
        # Python and TensorFlow keep memory until the process ends. The allocator returns null, as malloc does.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    if preloaded:
        # The runtime has to be loaded first, and needs the functions of the C++ library that throw exceptions.
        variables["LD_PRELOAD"] = " ".join(_file(name) for name in ("libasan.so", "libstdc++.so.6"))
    return variables


def _file(name):
    done = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def build(*arguments):
    """Builds the libraries for TensorFlow and XLA, or with `"--ort"` for onnxruntime. Returns the completed process."""
    command = [sys.executable, "-m", "keras_dynfilter.custom_ops.build", *arguments]
    return subprocess.run(command, env=environment(False), cwd=ROOT, capture_output=True, text=True, check=False)


def run(*arguments):
    """Runs Python with the instrumented libraries and returns the completed process."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(True), cwd=ROOT, capture_output=True, text=True, check=False)
