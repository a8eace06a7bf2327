# SPDX-License-Identifier: Apache-2.0
"""Draws random problems. A problem is a function of a seed and its number.

`PER_SIGNATURE` consecutive problems have one op, dtype and geometry, so that a graph is traced and compiled for all of
them. Their values differ, and come from different distributions.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tests.support import cases
from tests.support.numerics.rounding import FORMATS

PER_SIGNATURE = 40
OPS = (*cases.OPS, "project_and_pool")
KINDS = {"dynamic_conv2d": "bank", "local_conv2d": "banks", "project_and_pool": "projection"}


@dataclasses.dataclass(frozen=True)
class Signature:
    """An op in one geometry and dtype. `case.maps` is the number of output channels of ops that mix channels."""

    op: str
    case: cases.Case
    dtype: str

    @property
    def kind(self):
        return KINDS.get(self.op) or cases.OPS[self.op].kind

    @property
    def roles(self):
        return ("inputs", "kernel", "bias") if self.kind == "projection" else cases.OPS[self.op].roles

    @property
    def operand_shapes(self):
        if self.kind == "projection":
            return self.case.shape, (self.case.shape[3], self.case.maps), (self.case.maps,)
        return tuple(self.case.operand_shape(role) for role in self.roles)

    @property
    def output_shapes(self):
        if self.kind == "projection":
            return (*self.case.shape[:3], self.case.maps), (self.case.shape[0], self.case.shape[3])
        return (self.case.output_shape(cases.OPS[self.op]),)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A signature with values: arrays of float64 that the dtype represents exactly."""

    signature: Signature
    distribution: str
    operands: list
    upstreams: list
    directions: list

    op = property(lambda self: self.signature.op)
    case = property(lambda self: self.signature.case)
    dtype = property(lambda self: self.signature.dtype)
    kind = property(lambda self: self.signature.kind)
    roles = property(lambda self: self.signature.roles)

    @property
    def arrays(self):
        """All arrays, in the order of the arguments of `implementations.results`."""
        return [*self.operands, *self.upstreams, *self.directions]


@functools.lru_cache(maxsize=4)
def signature(seed, group):
    """Draws the op, geometry and dtype of a group of problems. Every op occurs with every dtype equally often."""
    rng = np.random.default_rng([seed, group])
    op, dtype = OPS[group % len(OPS)], cases.DTYPES[group // len(OPS) % len(cases.DTYPES)]
    return Signature(op, geometry(rng, op), dtype)


def geometry(rng, op):
    """Draws a geometry: one and many channels, wide rows, windows beyond the image, all strides and dilation rates."""
    mixes, projects = op in ("dynamic_conv2d", "local_conv2d"), op == "project_and_pool"
    while True:
        heads = 1 if mixes or projects else int(rng.choice([1, 1, 2, 3]))
        channels = int(rng.choice([1, 2, 3, 5] if mixes else [1, 1, 2, 3, 4, 8, 9, 15, 16, 17, 24, 32, 40, 64]))
        height, width = (int(rng.integers(1, limit + 1)) for limit in ([8, 8], [3, 40])[int(rng.integers(4) == 0)])
        case = cases.Case(
            "drawn",
            (int(rng.integers(1, 4)), height, width, heads * channels),
            tuple(int(size) for size in rng.choice([1, 3, 3, 5, 5, 7, 9, 11, 13], 2)),
            tuple(int(size) for size in rng.choice([1, 1, 2, 3], 2)),
            tuple(int(size) for size in rng.choice([1, 1, 2, 3], 2)),
            str(rng.choice(["same", "same", "valid"])),
            heads,
            int(rng.integers(1, 5 if mixes else 40)),
        )
        if projects:
            return dataclasses.replace(case, kernel_size=(1, 1), strides=(1, 1), dilation_rate=(1, 1), padding="same")
        products = case.shape[0] * np.prod(case.out_size) * np.prod(case.kernel_size) * case.shape[3]
        if 0 < products * (case.maps if mixes else 1) <= 40_000:
            return case


def draw(seed, number):
    """Draws the values of problem `number`."""
    rng = np.random.default_rng([seed, number, 1])
    return with_values(signature(seed, number // PER_SIGNATURE), str(rng.choice(list(DISTRIBUTIONS))), rng)


def with_values(drawn, distribution, rng):
    """Draws values for a signature."""
    shapes = [drawn.operand_shapes, drawn.output_shapes, drawn.operand_shapes]
    arrays = [[DISTRIBUTIONS[distribution](rng, shape, drawn.dtype) for shape in group] for group in shapes]
    return Problem(drawn, distribution, *([rounded(array, drawn.dtype) for array in group] for group in arrays))


def rounded(array, dtype):
    """Rounds to a dtype, and returns float64."""
    with np.errstate(over="ignore"):
        return array.astype(tf.as_dtype(dtype).as_numpy_dtype).astype(np.float64)


def _normal(rng, shape, dtype):
    return rng.standard_normal(shape)


def _wide(rng, shape, dtype):
    """Magnitudes that differ by a factor of 1,000."""
    return rng.standard_normal(shape) * 2.0 ** rng.uniform(-5, 5, shape)


def _sparse(rng, shape, dtype):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.3)


def _offset(rng, shape, dtype):
    """Nearly equal values, and half of the tensors with alternating signs: sums that cancel."""
    signs = np.where(np.arange(np.prod(shape)) % 2, -1.0, 1.0).reshape(shape)
    return (4 + rng.standard_normal(shape) / 64) * (signs if rng.random() < 0.5 else 1.0)


def _large(rng, shape, dtype):
    """Results beyond the range of float16. In the other dtypes, no product of four factors overflows."""
    return rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.uniform(0, 12, shape)


def _subnormal(rng, shape, dtype):
    """Half of the tensors have elements below the normal numbers of the dtype."""
    exponents = {"float16": (-26, -12), "bfloat16": (-136, -124), "float32": (-152, -124), "float64": (-1078, -1020)}
    tiny = np.exp2(rng.uniform(*exponents[dtype], shape))
    return rng.standard_normal(shape) * np.where((rng.random(shape) < 0.5) & (rng.random() < 0.5), tiny, 1.0)


def _special(rng, shape, dtype):
    """Half of the tensors have one or two elements that are infinite or NaN."""
    array = rng.standard_normal(shape)
    if array.size and rng.random() < 0.5:
        flat = array.reshape(-1)
        for index in rng.integers(0, flat.size, rng.integers(1, 3)):
            flat[index] = rng.choice([np.inf, -np.inf, np.nan])
    return array


DISTRIBUTIONS = {
    "normal": _normal,
    "wide": _wide,
    "sparse": _sparse,
    "offset": _offset,
    "large": _large,
    "subnormal": _subnormal,
    "special": _special,
}
assert set(cases.DTYPES) == set(FORMATS)
