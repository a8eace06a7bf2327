# SPDX-License-Identifier: Apache-2.0
"""Computes the exact result of a raw op in float64 with slices of NumPy, and compares a result with it.

`tests/support/reference.py` is obvious and slow; this file is fast enough to check a thousand calls per second.
`test_fast_reference.py` compares the two.
"""

import numpy as np

from tests.fuzz.failures import Failure
from tests.fuzz.rules import Geometry

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38, "float64": 1.79e308}
# A term below the smallest normal number of the accumulator may count as zero. Its other factors are at most 2^16.
FLUSHED = {"float64": 2.0**-1000}


def derivative(geometry: Geometry, wrt: str | None, operands: dict) -> tuple[np.ndarray, np.ndarray, int]:
    """Computes the derivative of T (see `keras_dynfilter/ops/backends/raw_ops.py`) with respect to one operand.

    Args:
        geometry: The sizes.
        wrt: None for the forward op.
        operands: `"inputs"`, `"spatial"`, `"channel"`, `"upstream"`, as far as the derivative reads them, float64.

    Returns:
        `(result, scale, terms)`: the result, the sum of the absolute values of the terms of every element, and the
        largest number of terms.
    """
    kind, heads = geometry.kind, geometry.heads
    batch, height, width, channels = geometry.image
    taps, per_head = geometry.kernel[0] * geometry.kernel[1], channels // heads
    logits = operands.get("spatial") if kind == "softmax" else None
    with np.errstate(all="ignore"):
        if logits is not None:
            shaped = logits.reshape(batch, *geometry.out_size, heads, taps)
            powers = np.exp(shaped - shaped.max(axis=-1, keepdims=True, initial=-np.inf))
            operands = dict(operands, spatial=powers / powers.sum(axis=-1, keepdims=True))
        # The second half of the batch holds absolute values, for the scale.
        x, s, c, g = (_doubled(operands.get(name)) for name in ("inputs", "spatial", "channel", "upstream"))
        x = None if x is None else x.reshape(2 * batch, height, width, heads, per_head)
        g = None if g is None else g.reshape(2 * batch, *geometry.out_size, heads, per_head)
        s = None if s is None else s.reshape(2 * batch, *geometry.out_size, heads, taps)
        c = None if c is None else c.reshape(2 * batch, taps, heads, per_head)
        result = {
            None: lambda: np.zeros((2 * batch, *geometry.out_size, heads, per_head)),
            "inputs": lambda: np.zeros((2 * batch, height, width, heads, per_head)),
            "spatial": lambda: np.zeros((2 * batch, *geometry.out_size, heads, taps)),
            "channel": lambda: np.zeros((2 * batch, taps, heads, per_head)),
        }[wrt]()
        if result.size:
            for tap, out, image in _taps(geometry):
                st = None if s is None else s[(slice(None), *out)][..., tap, None]
                ct = None if c is None else c[:, tap][:, None, None]
                if wrt in (None, "inputs"):
                    value = st * ct if kind == "mul" else st + ct if kind == "add" else ct if st is None else st
                    if wrt is None:
                        result[(slice(None), *out)] += value * x[(slice(None), *image)]
                    else:
                        result[(slice(None), *image)] += value * g[(slice(None), *out)]
                    continue
                value = g[(slice(None), *out)] * x[(slice(None), *image)]
                if wrt == "spatial":
                    result[(slice(None), *out)][..., tap] += (value * ct if kind == "mul" else value).sum(axis=-1)
                else:
                    result[:, tap] += (value * st if kind == "mul" else value).sum(axis=(1, 2))
        exact, scale = result[:batch], result[batch:]
        if kind == "softmax" and wrt == "spatial":
            p = operands["spatial"]
            scale = p * (scale + (p * scale).sum(axis=-1, keepdims=True))
            exact = p * (exact - (p * exact).sum(axis=-1, keepdims=True))
    shape = geometry.shape(wrt or "upstream")
    terms = taps + channels + geometry.out_size[0] * geometry.out_size[1]
    return exact.reshape(shape), scale.reshape(shape), terms


def _doubled(value: np.ndarray | None) -> np.ndarray | None:
    return None if value is None else np.concatenate([value, np.abs(value)])


def _taps(geometry: Geometry):
    """Yields `(tap, slices of the output, slices of the image)` for the taps that are over some pixel."""
    columns = [*_axis(geometry, 1)]
    for u, out_rows, rows in _axis(geometry, 0):
        for v, out_columns, image_columns in columns:
            yield u * geometry.kernel[1] + v, (out_rows, out_columns), (rows, image_columns)


def _axis(geometry: Geometry, axis: int):
    size, outputs = geometry.image[1 + axis], geometry.out_size[axis]
    stride, dilation, pad = geometry.strides[axis], geometry.dilation[axis], geometry.pad[axis]
    for tap in range(geometry.kernel[axis]):
        offset = tap * dilation - pad  # of the pixel of the first output
        first = max(0, -(offset // stride))
        last = min(outputs - 1, (size - 1 - offset) // stride)
        if first <= last:
            begin = first * stride + offset
            yield tap, slice(first, last + 1), slice(begin, begin + (last - first) * stride + 1, stride)


def project_and_pool(inputs: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> list[tuple]:
    """Returns `(result, scale, terms)` of both results of ProjectAndPool."""
    pixels = inputs.shape[1] * inputs.shape[2]
    with np.errstate(all="ignore"):
        rows = inputs.reshape(inputs.shape[0] * pixels, inputs.shape[3])
        shape = (*inputs.shape[:3], kernel.shape[1])
        projected = (rows @ kernel + bias).reshape(shape), (np.abs(rows) @ np.abs(kernel) + np.abs(bias)).reshape(shape)
        means = (np.divide(value.sum(axis=(1, 2)), pixels) for value in (inputs, np.abs(inputs)))
    return [(*projected, inputs.shape[3] + 1), (*means, pixels)]


def compare(actual: np.ndarray, exact: np.ndarray, scale: np.ndarray, terms: int, dtype: str) -> None:
    """Raises a `Failure` if a result differs by more than rounding explains, or has NaN or infinities elsewhere.

    The bound is the one of `tests.support.cases.assert_close`: sums in float32, or in float64 for float64, and one
    rounding of the result.
    """
    if actual.shape != exact.shape:
        raise Failure("wrong value", f"expected shape {exact.shape}, received {actual.shape}")
    if not actual.size:
        return
    with np.errstate(all="ignore"):
        actual = actual.astype(np.float64)
        epsilon = 2.0**-52 if dtype == "float64" else 2.0**-23
        allowed = (terms + 16) * (epsilon * scale + FLUSHED.get(dtype, 2.0**-110))
        allowed += 1.001 * ROUNDING.get(dtype, 0.0) * np.abs(exact) + (2.0**-24 if dtype == "float16" else 0.0)
        equal = (np.abs(actual - exact) <= allowed) | (actual == exact) | (np.isnan(actual) & np.isnan(exact))
        # Beyond the largest number of the dtype, the result is infinite.
        beyond = (np.abs(exact) + allowed >= LARGEST[dtype]) & np.isfinite(exact)
        equal |= beyond & (np.sign(actual) == np.sign(exact)) & (np.abs(actual) >= LARGEST[dtype] * 0.99)
    if not equal.all():
        wrong = ~equal
        place = np.unravel_index(wrong.argmax(), wrong.shape)
        raise Failure(
            "wrong value",
            f"{wrong.sum()} of {wrong.size} elements are off. At {tuple(map(int, place))}: expected {exact[place]:.9g} "
            f"within {allowed[place]:.3g}, received {actual[place]:.9g}",
        )
