# SPDX-License-Identifier: Apache-2.0
"""Compares random problems in all implementations with the true results. `make numerics` runs 10,000 problems."""

import numpy as np
import pytest

from tests.support import cases, reference
from tests.support.numerics import implementations, problems, rounding, truth
from tests.support.numerics.comparison import SEED, Comparison, as_float64

CYCLE = len(problems.OPS) * len(cases.DTYPES) * problems.PER_SIGNATURE  # every op with every dtype
OTHER_SEED = SEED + 1  # `make numerics` uses the first one


def check(comparison, numbers):
    comparison.run(numbers)
    assert comparison.results > 0 and {key[0] for key in comparison.figures} == set(problems.OPS)
    assert comparison.faults == []


@pytest.mark.parametrize("name", ["native", "composite, eager"])
def test_every_op_and_dtype(name, native_library):
    check(Comparison(OTHER_SEED, [name]), range(0, CYCLE, problems.PER_SIGNATURE // 2))


@pytest.mark.slow
def test_all_implementations(native_xla, ort_library):
    check(Comparison(OTHER_SEED, ort_library=ort_library), range(CYCLE, 2 * CYCLE, problems.PER_SIGNATURE // 4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", cases.FILTER_OPS)
def test_hosts_compute_equal_bits(op, dtype, native_library, ort_library):
    """TensorFlow and onnxruntime call the same kernels. Their threads treat subnormal numbers differently."""
    signature = problems.Signature(op, cases.BY_NAME["everything_at_once"], dtype)
    hosts = [implementations.in_tensorflow(signature, name) for name in ("native", "native, graph")]
    hosts.append(implementations.in_onnxruntime(signature, ort_library))
    rng = np.random.default_rng(0)
    for distribution in ("normal", *["subnormal"] * 4):
        problem = problems.with_values(signature, distribution, rng)
        eager, graph, ort = (host(problem) for host in hosts)
        outputs = [as_float64(output) for output in (*eager[0], *graph[0], *ort)]
        np.testing.assert_array_equal(outputs[1:], outputs[:1] * 2)
        for one, other in zip(eager[1], graph[1]):
            np.testing.assert_array_equal(as_float64(one), as_float64(other))


def test_wrong_results_are_found():
    """One result of a problem is off by twice its bound, is infinite, or is NaN."""
    problem = problems.draw(OTHER_SEED, 0)
    wanted = truth.results(problem)[0][0]
    form = rounding.FORMATS[problem.dtype]
    error = np.broadcast_to(wanted.error, wanted.value.shape) + form.unit * np.abs(wanted.value) + form.underflow
    for change in (2.1 * error.reshape(-1)[0], np.inf, np.nan):
        actual = wanted.value.copy()
        actual.reshape(-1)[0] += change
        assert rounding.compare(actual, wanted, form)[1] == 1
    assert rounding.compare(wanted.value, wanted, form) == (0.0, 0)


def test_overflow_has_to_be_infinite():
    form = rounding.FORMATS["float16"]
    wanted = rounding.Approximate(np.array([7e4, -7e4, 6e4, np.nan, 65520.0]), rounding.FORMATS["float32"], 1.0)
    assert rounding.compare(np.array([np.inf, -np.inf, 6e4, np.nan, 65504.0]), wanted, form)[1] == 0
    assert rounding.compare(np.array([65504.0, np.inf, np.inf, 0.0, np.inf]), wanted, form)[1] == 4


def test_bounds_hold_for_every_order_of_a_sum_and_are_close():
    """Adds float32 numbers one by one, in reverse order and in pairs. The bound is at most 1,000 times the error."""
    values = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)
    bound = rounding.Approximate(values.astype(np.float64), rounding.FORMATS["float32"]).sum(1)
    forward, backward = (np.add.accumulate(array, 1)[:, -1] for array in (values, values[:, ::-1]))
    pairs = values
    while pairs.shape[1] > 1:
        pairs = pairs[:, ::2] + pairs[:, 1::2]
    errors = [np.abs(result - bound.value) / bound.error for result in (forward, backward, pairs[:, 0])]
    assert 1e-3 < np.max(errors) <= 1


@pytest.mark.parametrize("op", cases.OPS)
def test_the_truth_equals_the_reference_implementation(op):
    """`truth` computes whole arrays at once; the reference implementation, one tap after the other."""
    first = problems.OPS.index(op) * problems.PER_SIGNATURE
    for number in range(first, first + 3 * CYCLE, len(problems.OPS) * problems.PER_SIGNATURE):
        problem = problems.draw(OTHER_SEED, number)
        if problem.distribution == "special" and problem.kind in ("bank", "banks"):
            continue  # matrix products multiply the padding, and the reference implementation skips it
        outputs, gradients, _ = truth.results(problem)
        with np.errstate(all="ignore"):
            expected = reference_results(problem)
        for actual, wanted in zip([*outputs, *gradients], expected, strict=True):
            assert actual.value.shape == wanted.shape
            np.testing.assert_allclose(actual.value, wanted, rtol=1e-9, atol=1e-9 * _largest(wanted))


def reference_results(problem):
    operands, (upstream,), case = problem.operands, problem.upstreams, problem.case
    if problem.kind in ("bank", "banks"):
        function, gradients = (getattr(reference, problem.op + suffix) for suffix in ("", "_gradients"))
        return [function(*operands, **case.window), *gradients(*operands, upstream, **case.window)]
    factors = cases.factors(cases.OPS[problem.op], operands)
    geometry = dict(case.geometry, heads=case.heads)
    gradients = reference.filter2d_gradients(*factors, problem.kind, upstream, **geometry)
    by_role = dict(zip(("inputs", "spatial", "channel"), gradients))
    return [reference.filter2d(*factors, problem.kind, **geometry), *(by_role[role] for role in problem.roles)]


def _largest(array):
    return np.abs(array[np.isfinite(array)]).max(initial=0.0)
