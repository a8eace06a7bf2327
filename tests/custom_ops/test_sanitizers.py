# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels, the thread pools and the code of the hosts under AddressSanitizer, UBSan and ThreadSanitizer.

The CUDA kernels are in `test_cuda_emulation.py`. `make sanitize` runs both files.
"""

import dataclasses
import os

import numpy as np
import pytest

from keras_dynfilter.custom_ops import cache, ort_headers
from tests.custom_ops.test_cuda_emulation import CASES, OPS, assert_close, jobs_of
from tests.support import cases
from tests.support.cases import Case
from tests.support.cuda_emulation import harness
from tests.support.sanitizers import glue, kernels

pytestmark = pytest.mark.slow

# A filter of 1,027 taps does not fit the memory on the stack.
LARGE = Case("large_window", (2, 5, 4, 6), (13, 79), heads=2)
PROJECTIONS = [
    (2, 35, 64, 9),
    (1, 15, 3, 9),
    (3, 1, 40, 1),
    (2, 336, 33, 36),
    (2, 0, 8, 9),
    (2, 16, 0, 9),
    (2, 16, 8, 0),
]


def projections(dtype):
    """Yields jobs of ProjectAndPool with their projected pixels and means."""
    for batch, pixels, channels, outputs in PROJECTIONS:
        arrays = [cases.values(size) for size in ((batch, pixels, channels), (channels, outputs), (outputs,))]
        with np.errstate(invalid="ignore"):
            expected = arrays[0] @ arrays[1] + arrays[2], arrays[0].sum(axis=1) / pixels if pixels else None
        yield kernels.Projection(dtype, tuple(a.astype(harness.DTYPES[dtype]) for a in arrays)), expected


def check(sanitizer, jobs, host):
    """Runs jobs, given with the arguments of `assert_close`."""
    for (result,), (_, *truth) in zip(kernels.run(sanitizer, [job for job, *_ in jobs], host), jobs, strict=True):
        assert_close(result, *truth)


def check_projections(run, dtype):
    """Checks the results of ProjectAndPool. `run` runs jobs."""
    jobs = list(projections(dtype))
    for results, (_, expected) in zip(run([job for job, _ in jobs]), jobs, strict=True):
        for actual, wanted in zip(results, expected):
            if wanted is None:
                assert np.isnan(actual.astype("float64")).all()
            else:
                tolerance = 64 * 2.0 ** -{"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype]
                np.testing.assert_allclose(actual.astype("float64"), wanted, rtol=0, atol=8 * tolerance)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_kernels_access_only_their_operands(op):
    """AddressSanitizer and UBSan, for every derivative, with the types in turn."""
    types = list(harness.DTYPES)
    for host in ("caller", "onnxruntime"):
        numbered = enumerate([*CASES, LARGE], start=OPS.index(op) + kernels.HOSTS.index(host))
        jobs = [job for number, case in numbered for job in jobs_of(op, case, types[number % len(types)])]
        check("address", jobs, host)


@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_project_and_pool_accesses_only_its_operands(dtype):
    check_projections(lambda jobs: kernels.run("address", jobs, "onnxruntime"), dtype)


@pytest.mark.parametrize("host", kernels.HOSTS[1:])
def test_threads_do_not_race(host):
    """ThreadSanitizer, with the ways in which the hosts divide work."""
    chosen = [cases.BY_NAME[name] for name in cases.EXTENDED]
    jobs = [job for op in OPS for case in [*chosen, LARGE] for job in jobs_of(op, case, "float32")]
    check("thread", jobs, host)
    check_projections(lambda jobs: kernels.run("thread", jobs, host), "float32")


@pytest.mark.parametrize("sanitizer", kernels.SANITIZERS)
@pytest.mark.parametrize("host", kernels.HOSTS)
def test_failed_allocations_reach_the_caller(host, sanitizer):
    """Threads of a pool fail to allocate memory for a filter. The caller gets the exception, and nothing leaks."""
    taps = LARGE.kernel_size[0] * LARGE.kernel_size[1]
    op = next(op for op in OPS if op.kind == "softmax")
    jobs = [job for job, *_ in jobs_of(op, LARGE, "float32")]
    assert len(jobs) == 3
    assert kernels.run(sanitizer, jobs, host, max_bytes=4 * taps - 1) == [None] * 3
    enough = kernels.run(sanitizer, jobs, host, max_bytes=4 * taps)
    assert None not in enough


def succeeded(done):
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.skipif("KERAS_DYNFILTER_SANITIZE" not in os.environ, reason="it compiles for minutes: make sanitize")
def test_the_glue_of_tensorflow_and_xla():
    """Every raw op with refused arguments, and with extreme shapes, eagerly and compiled."""
    succeeded(glue.build())
    succeeded(glue.run("-m", "tests.support.raw_ops"))
    for mode in ("eager", "xla"):
        succeeded(glue.run("-m", "tests.support.extreme_shapes", mode, "3"))


def test_the_glue_of_onnxruntime(ort_library, monkeypatch):
    """The tests of the library: values in every type, threads, empty batches, and refused nodes and shapes."""
    monkeypatch.setenv(ort_headers.VARIABLE, str(ort_headers.find_headers(cache.cache_folder())))
    succeeded(glue.build("--ort"))
    chosen = "values or threads or empty or refused_by or sessions_know"
    printed = succeeded(
        glue.run("-m", "pytest", "-q", "-p", "no:faulthandler", "-k", chosen, "tests/custom_ops/test_ort_library.py")
    )
    assert "passed" in printed and "skipped" not in printed


def test_the_sanitizers_find_mistakes():
    """An operand that is one element too short."""
    job = next(jobs_of(OPS[0], CASES[0], "float32"))[0]
    short = dataclasses.replace(job, operands={**job.operands, "inputs": job.operands["inputs"].ravel()[:-1]})
    with pytest.raises(RuntimeError, match="AddressSanitizer: heap-buffer-overflow"):
        kernels.run("address", [short], "caller")
