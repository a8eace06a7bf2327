# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels on an emulated device agree with the reference implementation. nvcc compiles them without
warnings."""

import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tests.ops.test_ddf_vectors import GRADIENT_CHECKS, WORKED, rows, worked_operands
from tests.support import cases, raw_ops
from tests.support.cases import Case
from tests.support.cuda_emulation import harness
from tests.support.cuda_emulation.harness import Device, Job
from tests.support.extreme_shapes import Axis, Call

# Few blocks, so that kernels loop over their work; blocks and threads in reverse order; too little shared memory for
# filters.
FEW_BLOCKS = Device(max_blocks=2)
BACKWARDS = Device(max_blocks=3, backwards=True)
NO_SHARED = Device(max_shared=64)

# The cases of the op tests, and cases at the limits of the kernels.
CASES = (
    *cases.CASES,
    Case("three_columns_of_vectors", (1, 9, 11, 32)),
    Case("five_columns_of_vectors", (1, 6, 10, 16), (5, 5)),
    Case("five_columns_of_15_channels", (1, 6, 9, 15), (3, 5)),
    Case("several_tiles_of_channels", (1, 2, 5, 264), heads=3),
    Case("several_chunks_of_positions", (2, 10, 13, 128)),
    Case("several_chunks_and_tap_tiles", (1, 10, 13, 128), (1, 13), heads=2),
    Case("heads_beyond_a_block", (1, 2, 3, 131), heads=131),
    Case("row_beyond_a_block", (1, 2, 150, 1)),
    Case("more_shared_memory_than_usual", (1, 3, 11, 1), (21, 21)),
    Case("dense_rows_strided_down", (1, 9, 6, 8), (5, 3), (2, 1), (3, 1), heads=2),
    Case("5_channels_of_4_heads", (2, 5, 6, 20), heads=4),
    Case("stride_3_row", (1, 4, 40, 2), (3, 7), (2, 3), (1, 4)),
    Case("strides_of_17_and_18", (1, 40, 39, 5), (5, 7), (17, 18), (2, 3)),
    Case("stride_of_18_and_dilation_of_4", (2, 3, 40, 6), (3, 15), (1, 18), (1, 4), heads=2),
    Case("window_far_beyond_image", (1, 2, 3, 20), (5, 61)),
    Case("empty_batch", (0, 5, 6, 3)),
    Case("empty_image", (2, 0, 6, 3)),
    Case("no_channels", (1, 4, 4, 0)),
)
CUDA_SOURCES = sorted((harness.SOURCES / "cuda").rglob("*.cu"))
OPS = [cases.OPS[name] for name in cases.FILTER_OPS]
# Compiling the emulation for a type takes half a minute, so the fast tests have one type only.
DTYPES = [pytest.param(name, marks=[] if name == "float32" else pytest.mark.slow) for name in harness.DTYPES]


def jobs_of(op, case, dtype):
    """Yields `(job, expected, scale, terms)` for every derivative that exists for the kind of `op`."""
    truth = cases.truth(op, case)
    operands = {**dict(zip(op.roles, truth.operands)), "grad": truth.upstream}
    expected = [("output", truth.output, truth.output_scale)]
    expected += zip(op.roles, truth.gradients, truth.gradient_scales)
    for derivative, value, scale in expected:
        if op.kind == "add" and derivative in ("spatial", "channel"):
            continue  # equal to the derivatives of "spatial" and "channel"
        names = harness.read_operands(op.kind, derivative)
        read = {name: operands[name].astype(harness.DTYPES[dtype]) for name in names}
        yield Job(case, op.kind, derivative, dtype, read), value, scale, truth.terms


def assert_close(result, expected, scale, terms):
    actual = tf.constant(result, result.dtype.name)
    cases.assert_close(actual, expected.reshape(result.shape), scale.reshape(result.shape), terms, result.dtype.name)


def assert_same_bits(result, expected):
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_derivatives_match_the_reference(op, case, dtype):
    for job, *truth in jobs_of(op, case, dtype):
        result = harness.run(job, FEW_BLOCKS)
        assert_close(result, *truth)
        assert_same_bits(harness.run(job, BACKWARDS), result)
        assert_close(harness.run(job, NO_SHARED), *truth)


@pytest.mark.parametrize("filters, combine, strides, dilation_rate, expected", WORKED, ids=str)
def test_worked_vectors_of_ddf(filters, combine, strides, dilation_rate, expected):
    case = Case("", (1, 4, 4, 1), strides=(strides,) * 2, dilation_rate=(dilation_rate,) * 2)
    names = ("inputs", "channel", "spatial")
    operands = {name: value.astype(np.float32) for name, value in zip(names, worked_operands(filters, strides))}
    result = harness.run(Job(case, combine, "output", "float32", operands), FEW_BLOCKS)
    np.testing.assert_array_equal(result[0, ..., 0], rows(expected))


# A kernel that tries every tap for every pixel takes hours, even without threads.
EXTREME = (
    Call(Axis(1, 1), Axis(2**16, 2**18 + 1, 2**31 - 1, 2047)),
    Call(Axis(3, 2**14 + 1), Axis(2, 3), channels=3),
    Call(Axis(2**40, 1), Axis(0)),
    Call(Axis(2, 3, padding="valid"), Axis(40, padding="valid"), batch=3, channels=8),
)


@pytest.mark.parametrize("op", raw_ops.OPS, ids=lambda op: f"{op.name}-{op.kind}")
def test_extreme_shapes(op):
    for call in EXTREME:
        if not call.fits(op) or np.prod(np.array(call.shape(op.result), object)) > 2**16:  # the emulation is slow
            continue
        axes = (call.rows, call.columns)
        window = ([getattr(axis, name) for axis in axes] for name in ("window", "stride", "dilation"))
        case = Case("", call.shape("inputs"), *map(tuple, window), call.rows.padding, call.heads)
        derivative = "output" if op.result == "grad" else op.result
        names = harness.read_operands(op.kind, derivative)
        operands = {name: np.ones(call.shape(name), np.float32) for name in names}
        result = harness.run(Job(case, op.kind, derivative, "float32", operands), FEW_BLOCKS)
        assert result.shape == call.shape(op.result)
        if result.size:
            np.testing.assert_allclose(result, call.expected(op), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddf2d_mul", "ddf2d_add"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dilation_rate", [1, 2])
@pytest.mark.parametrize("batch, channels, size, kernel", GRADIENT_CHECKS)
def test_gradient_checks_of_ddf(batch, channels, size, kernel, dilation_rate, strides, name):
    """The gradient checks of test_ddf_vectors.py, in float64."""
    case = Case("", (batch, size, size, channels), (kernel,) * 2, (strides,) * 2, (dilation_rate,) * 2)
    for job, *truth in jobs_of(cases.OPS[name], case, "float64"):
        assert_close(harness.run(job, FEW_BLOCKS), *truth)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_sanitizers_find_nothing(op):
    jobs, truths = [], []
    types = list(harness.DTYPES)
    for number, case in enumerate(CASES, start=OPS.index(op)):
        for job, *truth in jobs_of(op, case, types[number % len(types)]):
            jobs.append(job)
            truths.append(truth)
    for device in (FEW_BLOCKS, NO_SHARED):
        for result, truth in zip(harness.run_sanitized(jobs, device), truths, strict=True):
            assert_close(result, *truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_operands_may_be_unaligned(op, dtype):
    case = Case("", (1, 5, 6, 32), heads=2)
    for job, *truth in jobs_of(op, case, dtype):
        assert_close(harness.run(job, FEW_BLOCKS, shift=1), *truth)


@pytest.mark.parametrize("channels", [1, 3, 32])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_filters_outside_the_image_do_not_matter(op, channels):
    case = Case("", (1, 4, 5, channels), (9, 3))
    rows = np.arange(4)[:, None] + np.arange(9) - 4  # the image row of each output row and tap row
    outside = (rows < 0) | (rows >= 4)
    for job, *_ in jobs_of(op, case, "float32"):
        if op.kind == "softmax":
            continue
        poisoned, clean = dict(job.operands), dict(job.operands)
        for name, operands, value in [(n, o, v) for n in job.operands for o, v in ((poisoned, np.inf), (clean, 0))]:
            operand = operands[name].copy()
            if name == "spatial":
                operand.reshape(1, 4, 5, 9, 3)[:, np.broadcast_to(outside[:, None], (4, 5, 9))] = value
            elif name == "channel":
                operand[:, outside.all(axis=0)] = value
            operands[name] = operand
        for device in (FEW_BLOCKS, NO_SHARED):
            results = [harness.run(Job(case, op.kind, job.derivative, job.dtype, o), device) for o in (poisoned, clean)]
            assert np.isfinite(results[0]).all()
            np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("channels", [1, 16])
def test_softmax_of_extreme_logits(channels):
    case = Case("", (1, 4, 5, channels))
    op = cases.OPS["local_filter2d_softmax"]
    logits = 100 * cases.values(case.operand_shape("spatial"))
    logits[..., ::2] = -np.inf
    shifted = np.where(np.isinf(logits), -np.inf, logits - logits.max(axis=-1, keepdims=True))
    for device in (FEW_BLOCKS, NO_SHARED):
        for job, *_ in jobs_of(op, case, "float32"):
            results = []
            for value in (logits, shifted):
                operands = {**job.operands, "spatial": value.astype(np.float32)}
                results.append(harness.run(Job(case, "softmax", job.derivative, "float32", operands), device))
            assert np.isfinite(results[0]).all()
            np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-6)
            if job.derivative == "spatial":
                np.testing.assert_array_equal(results[0][..., ::2], 0)


def test_derivatives_that_do_not_exist_are_an_error():
    case = Case("", (1, 4, 5, 3))
    operands = {name: np.zeros(case.operand_shape(name), np.float32) for name in ("inputs", "spatial", "channel")}
    operands["grad"] = np.zeros((1, 4, 5, 3), np.float32)
    for kind, derivative in (("add", "spatial"), ("add", "channel"), ("spatial", "channel"), ("channel", "spatial")):
        with pytest.raises(RuntimeError, match="invalid argument"):
            harness.run(Job(case, kind, derivative, "float32", operands), FEW_BLOCKS)


@pytest.mark.parametrize(
    "mistake, message",
    [
        (0, None),
        (1, "diverge"),  # a barrier in a branch
        (2, "diverge"),  # a thread that leaves before the barrier
        (3, "diverge"),  # a shuffle without some lanes
        (4, "invalid configuration"),  # more shared memory than a kernel has by default
        (5, "invalid configuration"),  # too many threads
    ],
)
def test_the_emulation_finds_mistakes(mistake, message):
    error = harness.library().emulation_make_mistake(mistake)
    assert (error is None) == (message is None)
    assert message is None or message in error.decode()


def test_the_emulation_fills_shared_memory_with_nan():
    assert harness.library().emulation_reads_unwritten_shared_memory()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_emulation_converts_as_the_device_does(name):
    dtype = harness.DTYPES[name]
    all_halves = np.arange(2**16, dtype=np.uint16)
    widened = np.empty(2**16, np.float32)
    harness.library().emulation_widen(name == "float16", harness.pointer(all_halves), harness.pointer(widened), 2**16)
    np.testing.assert_array_equal(widened, all_halves.view(dtype).astype(np.float32))
    finite = widened[np.isfinite(widened)]
    halfway = finite[1:] / 2 + finite[:-1] / 2
    values = np.concatenate([finite, np.nextafter(finite, np.float32(0)), halfway])
    narrowed = np.empty(values.size, np.uint16)
    harness.library().emulation_narrow(
        name == "float16", harness.pointer(values), harness.pointer(narrowed), values.size
    )
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(narrowed.view(dtype), values.astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("source", CUDA_SOURCES, ids=lambda path: path.name)
def test_nvcc_compiles_without_warnings(source, tmp_path):
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on this machine")
    # PTX only, because the front end gives the warnings. The build of the library runs the assembler.
    flags = ["-std=c++17", "-O3", "-arch=compute_90", "-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    command = [nvcc, *flags, f"-I{harness.SOURCES}", "-c", str(source)]
    done = subprocess.run([*command, "-o", str(tmp_path / "unit.o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
