# SPDX-License-Identifier: Apache-2.0
"""Compiles the CUDA sources for the emulated device with the C++ compiler of the host, and runs problems on this
device."""

import ctypes
import dataclasses
import functools
import os
import pathlib
import tempfile

import ml_dtypes
import numpy as np

from tests.support import compilation

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "custom_ops" / "cc"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror")
# The host compiler does not know `#pragma unroll`, and its warning about `getcontext` is a false positive.
IGNORED_WARNINGS = ("-Wno-unknown-pragmas", "-Wno-maybe-uninitialized")
SANITIZERS = ("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
KINDS = ("spatial", "channel", "mul", "add", "softmax")
DERIVATIVES = ("output", "inputs", "spatial", "channel")
OPERANDS = ("inputs", "spatial", "channel", "grad")


@dataclasses.dataclass(frozen=True)
class Device:
    """The limits of the emulated device, and whether its threads and blocks run in reverse order."""

    max_blocks: int = 2**31 - 1
    max_shared: int = 227 * 1024
    backwards: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """One derivative of one filter kind for one case. `operands` has the operands that the derivative reads."""

    case: object
    kind: str
    derivative: str
    dtype: str
    operands: dict

    @property
    def problem(self):
        """The fields of the C++ struct `Problem`."""
        case = self.case
        batch, height, width, channels = case.shape
        pads = [(k - 1) // 2 * d if case.padding == "same" else 0 for k, d in zip(case.kernel_size, case.dilation_rate)]
        indices = (KINDS.index(self.kind), DERIVATIVES.index(self.derivative), list(DTYPES).index(self.dtype))
        sizes = (batch, height, width, channels, *case.out_size, case.heads)
        window = (*case.kernel_size, *case.strides, *case.dilation_rate, *pads)
        return np.array([*indices, *sizes, *window], np.int64)

    @property
    def result_shape(self):
        if self.derivative == "output":
            return (*self.operands["inputs"].shape[:1], *self.case.out_size, self.case.shape[3])
        return self.case.operand_shape(self.derivative)


def read_operands(kind, derivative):
    """Returns the names of the operands that a derivative reads. The other operands may be null."""
    spatial = ["spatial"] if kind != "channel" else []
    channel = ["channel"] if kind in ("channel", "mul", "add") else []
    absent = "grad" if derivative == "output" else derivative
    names = ["inputs", "grad", *spatial, *channel]
    return [name for name in names if name != absent or (kind, derivative) == ("softmax", "spatial")]


@functools.cache
def build(sanitized):
    """Returns the path of the shared library, or of the program for sanitizers. Builds the file if it does not
    exist."""
    units = sorted((SOURCES / "cuda").rglob("*.cu")) + sorted(HERE.glob("*.cc"))
    headers = [*SOURCES.glob("*.h"), *(SOURCES / "cuda").rglob("*.cuh"), *HERE.glob("*.h")]
    flags = [*FLAGS, *IGNORED_WARNINGS, *(SANITIZERS if sanitized else ()), f"-I{HERE}", f"-I{SOURCES}"]
    name = "cuda_emulation_sanitized" if sanitized else "cuda_emulation"
    return compilation.build(name, units, headers, flags, SANITIZERS if sanitized else ["-shared"])


@functools.cache
def library():
    loaded = ctypes.CDLL(str(build(False)))
    loaded.emulation_run.restype = ctypes.c_char_p
    loaded.emulation_make_mistake.restype = ctypes.c_char_p
    loaded.emulation_workspace_bytes.restype = ctypes.c_int64
    loaded.emulation_choose_kernel.restype = ctypes.c_char_p
    return loaded


def pointer(array):
    """Returns the address of an array for C; the address is null for None and for an empty array."""
    return ctypes.c_void_p(array.ctypes.data if array is not None and array.size else None)


def choose_kernel(job, alignment, max_shared):
    """Returns the kernel that the CUDA code chooses for a job, with its options.

    Args:
        job: The `Job`. Its operands are not read.
        alignment: A power of two that divides the addresses of the operands.
        max_shared: The bytes of shared memory that a block can have.

    Returns:
        The name of the kernel, the elements per access, the columns of the window for which it is compiled (0 for every
        window), and the channels of a head for which it is compiled (0 for every number).
    """
    options = (ctypes.c_int * 3)()
    limits = ctypes.c_int64(alignment), ctypes.c_int64(max_shared)
    name = library().emulation_choose_kernel(pointer(job.problem), *limits, options)
    return name.decode(), *options


def run(job, device, shift=0):
    """Runs a job and returns its result.

    Args:
        job: The `Job`.
        device: The `Device`.
        shift: The number of elements by which the addresses of the operands and the result are misaligned.

    Raises:
        RuntimeError: With the error message of the library.
    """
    dtype = DTYPES[job.dtype]

    def allocate(shape):
        size = int(np.prod(shape))
        return np.full((size + shift) * dtype.itemsize, 0xFF, np.uint8).view(dtype)[shift:].reshape(shape)

    arrays = []
    for name in OPERANDS:
        operand = job.operands.get(name)
        arrays.append(None if operand is None else allocate(operand.shape))
        if operand is not None:
            arrays[-1][...] = operand
    result = allocate(job.result_shape)
    problem = job.problem
    assert problem.size == library().emulation_problem_fields()
    workspace = np.full(library().emulation_workspace_bytes(pointer(problem)), 0xFF, np.uint8)
    buffers = (ctypes.c_void_p * 6)(*map(pointer, (*arrays, result, workspace)))
    limits = [ctypes.c_int64(value) for value in (device.max_blocks, device.max_shared, device.backwards)]
    message = library().emulation_run(pointer(problem), ctypes.byref(buffers), *limits)
    if message is not None:
        raise RuntimeError(message.decode())
    return result


def run_sanitized(jobs, device):
    """Runs jobs in a program under AddressSanitizer and UBSan, and returns their results.

    Raises:
        RuntimeError: With the report of a sanitizer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with open(f"{scratch}/jobs", "wb") as file:
            for job in jobs:
                arrays = [job.operands.get(name, np.empty(0)) for name in OPERANDS]
                size = int(np.prod(job.result_shape)) * DTYPES[job.dtype].itemsize
                limits = (device.max_blocks, device.max_shared, device.backwards)
                header = [*job.problem, *limits, *(array.nbytes for array in arrays), size]
                file.write(np.array(header, np.int64).tobytes())
                for array in arrays:
                    file.write(array.tobytes())
        options = {"ASAN_OPTIONS": "detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        compilation.run([str(build(True)), f"{scratch}/jobs", f"{scratch}/results"], env={**os.environ, **options})
        content = pathlib.Path(f"{scratch}/results").read_bytes()
    results, offset = [], 0
    for job in jobs:
        dtype, count = DTYPES[job.dtype], int(np.prod(job.result_shape))
        results.append(np.frombuffer(content, dtype, count, offset).reshape(job.result_shape))
        offset += count * dtype.itemsize
    assert offset == len(content)
    return results
