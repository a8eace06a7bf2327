# SPDX-License-Identifier: Apache-2.0
"""Runs the CPU kernels in a program that is compiled with sanitizers, or for another processor."""

import dataclasses
import functools
import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from tests.support import compilation
from tests.support.cuda_emulation.harness import DTYPES, OPERANDS, SOURCES

HERE = pathlib.Path(__file__).resolve().parent
# The instruction set of this machine, with little optimisation: the sanitizers make compilation slow.
FLAGS = ("-std=c++17", "-O1", "-g1", "-march=native", "-pthread", "-fno-sanitize-recover=all")
SANITIZERS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}
# How the hosts divide work among threads.
HOSTS = ("caller", "tensorflow", "xla", "onnxruntime")
UNLIMITED = 2**62


@dataclasses.dataclass(frozen=True)
class Projection:
    """A problem of ProjectAndPool."""

    dtype: str
    operands: tuple  # inputs [batch, pixels, channels], kernel, bias

    @property
    def fields(self):
        batch, pixels, channels = self.operands[0].shape
        return [list(DTYPES).index(self.dtype), batch, pixels, channels, self.operands[1].shape[1]]

    @property
    def result_shapes(self):
        _, batch, pixels, channels, outputs = self.fields
        return [(batch, pixels, outputs), (batch, channels)]


@functools.cache
def build(sanitizer):
    """Returns the path of the program for "address" (with UBSan) or "thread"."""
    units = [*sorted((SOURCES / "cpu").rglob("*.cc")), HERE / "kernels.cc"]
    headers = [path for folder in ("", "cpu", "xla") for path in sorted((SOURCES / folder).rglob("*.h"))]
    flag = SANITIZERS[sanitizer]
    flags = [*FLAGS, flag, f"-I{SOURCES}", "-isystem", tf.sysconfig.get_include()]
    return compilation.build(f"kernels_{sanitizer}", units, headers, flags, [flag, "-pthread"])


def run(sanitizer, jobs, host, max_bytes=UNLIMITED):
    """Runs jobs under a sanitizer, "address" or "thread". See `run_program`.

    Raises:
        RuntimeError: With the report of the sanitizer.
    """
    options = {"ASAN_OPTIONS": "allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return run_program([str(build(sanitizer))], jobs, host, max_bytes, env={**os.environ, **options})


def run_program(command, jobs, host, max_bytes=UNLIMITED, **options):
    """Runs jobs and returns the results of each: a list of arrays, or None if memory could not be allocated.

    Args:
        command: The program that is made from `kernels.cc`, or a command that runs it.
        jobs: A `Projection`, or a `Job` of the emulated device, per job.
        host: One of `HOSTS`.
        max_bytes: The largest allocation that does not fail.
        **options: Options of `subprocess.run`.

    Raises:
        RuntimeError: With the output of a program that fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with open(f"{scratch}/jobs", "wb") as file:
            for job in jobs:
                is_projection = isinstance(job, Projection)
                fields = job.fields + [0] * 13 if is_projection else job.problem
                arrays = job.operands if is_projection else [job.operands.get(name, np.empty(0)) for name in OPERANDS]
                sizes = [array.nbytes for array in arrays] + [_bytes(job, shape) for shape in _shapes(job)]
                header = [is_projection, *fields, HOSTS.index(host), max_bytes, *sizes]
                file.write(np.array(header, np.int64).tobytes())
                for array in arrays:
                    file.write(array.tobytes())
        compilation.run([*command, f"{scratch}/jobs", f"{scratch}/results"], **options)
        content = pathlib.Path(f"{scratch}/results").read_bytes()
    results, offset = [], 0
    for job in jobs:
        failed = np.frombuffer(content, np.int64, 1, offset)[0]
        offset += 8
        results.append(None if failed else [])
        for shape in [] if failed else _shapes(job):
            array = np.frombuffer(content, DTYPES[job.dtype], int(np.prod(shape)), offset)
            results[-1].append(array.reshape(shape))
            offset += array.nbytes
    assert offset == len(content)
    return results


def _shapes(job):
    return job.result_shapes if isinstance(job, Projection) else [job.result_shape]


def _bytes(job, shape):
    return int(np.prod(shape)) * DTYPES[job.dtype].itemsize
