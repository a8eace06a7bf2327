# SPDX-License-Identifier: Apache-2.0
"""Lists the public ops and geometries for the op tests, and makes operands and their true results."""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import ops
from tests.support import reference

DTYPES = ("float16", "bfloat16", "float32", "float64")
DATA_FORMATS = ("channels_last", "channels_first")
MODES = ("eager", "function", "xla")


@dataclasses.dataclass(frozen=True)
class Op:
    """A public op in one configuration.

    Attributes:
        name: Name of the configuration.
        function: The public function.
        operands: Pairs `(argument, role)`. A role is `"inputs"`, `"spatial"`, `"channel"`, `"bank"` (a filter bank per
            sample) or `"banks"` (a filter bank per position). Inputs and spatial filters have a data format.
        kind: The kind of filter, or None for ops that mix channels.
        options: Further arguments.
    """

    name: str
    function: Callable
    operands: tuple[tuple[str, str], ...]
    kind: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def roles(self):
        return tuple(role for _, role in self.operands)

    @property
    def takes_heads(self):
        return "spatial" in self.roles


_LOCAL = (("inputs", "inputs"), ("filters", "spatial"))
_DDF = (("inputs", "inputs"), ("channel_filters", "channel"), ("spatial_filters", "spatial"))
_OPS = (
    Op("local_filter2d", ops.local_filter2d, _LOCAL, "spatial"),
    Op("local_filter2d_softmax", ops.local_filter2d, _LOCAL, "softmax", (("normalization", "softmax"),)),
    Op(
        "dynamic_depthwise_conv2d",
        ops.dynamic_depthwise_conv2d,
        (("inputs", "inputs"), ("filters", "channel")),
        "channel",
    ),
    Op("ddf2d_mul", ops.ddf2d, _DDF, "mul", (("combine", "mul"),)),
    Op("ddf2d_add", ops.ddf2d, _DDF, "add", (("combine", "add"),)),
    Op("dynamic_conv2d", ops.dynamic_conv2d, (("inputs", "inputs"), ("filters", "bank"))),
    Op("local_conv2d", ops.local_conv2d, (("inputs", "inputs"), ("filters", "banks"))),
)
OPS = {op.name: op for op in _OPS}
FILTER_OPS = tuple(op.name for op in _OPS if op.kind)


@dataclasses.dataclass(frozen=True)
class Case:
    """A channels-last image shape and a window. Only some ops use `heads` and `maps` (number of output channels)."""

    name: str
    shape: tuple
    kernel_size: tuple = (3, 3)
    strides: tuple = (1, 1)
    dilation_rate: tuple = (1, 1)
    padding: str = "same"
    heads: int = 1
    maps: int = 2

    @property
    def window(self):
        return dict(strides=self.strides, dilation_rate=self.dilation_rate, padding=self.padding)

    @property
    def geometry(self):
        return dict(self.window, kernel_size=self.kernel_size)

    @property
    def out_size(self):
        return reference.output_shape(self.shape, self.geometry)

    def operand_shape(self, role):
        batch, _, _, channels = self.shape
        return {
            "inputs": self.shape,
            "spatial": (batch, *self.out_size, self.heads * self.kernel_size[0] * self.kernel_size[1]),
            "channel": (batch, *self.kernel_size, channels),
            "bank": (batch, *self.kernel_size, channels, self.maps),
            "banks": (batch, *self.out_size, *self.kernel_size, channels, self.maps),
        }[role]

    def output_shape(self, op):
        return (self.shape[0], *self.out_size, self.shape[3] if op.kind else self.maps)


# With 8 or more channels per head, the CPU kernels put SIMD lanes along the channels, with fewer along the taps.
CASES = (
    Case("plain", (2, 5, 6, 3)),
    Case("one_channel_window_beyond_image", (1, 4, 5, 1), (9, 9), maps=1),
    Case("one_channel_wide_row", (1, 3, 41, 1), (5, 5), maps=3),
    Case("unequal_strides", (2, 7, 8, 17), (3, 5), (2, 3)),
    Case("unequal_dilation", (1, 9, 6, 4), (3, 3), (1, 1), (4, 1)),
    Case("row_window", (2, 3, 15, 3), (1, 13), padding="valid", maps=1),
    Case("row_window_same", (1, 4, 10, 1), (1, 13)),
    Case("two_heads_of_16", (1, 6, 5, 32), (3, 3), (2, 2), heads=2),
    Case("a_head_per_channel", (2, 4, 4, 4), (3, 3), heads=4),
    Case("three_heads_of_3_valid", (1, 8, 9, 9), (3, 3), (1, 1), (2, 2), "valid", heads=3),
    Case("64_channels_stride_3", (1, 7, 5, 64), (3, 3), (3, 3)),
    Case("100_channels_pointwise", (2, 3, 3, 100), (1, 1), heads=2),
    Case("17_channels_dilation_3", (1, 7, 8, 17), (5, 3), (1, 1), (3, 3)),
    Case("everything_at_once", (2, 10, 11, 24), (5, 3), (3, 2), (2, 3), heads=3),
    Case("everything_valid", (1, 9, 13, 6), (3, 3), (1, 3), (3, 2), "valid", heads=2),
    Case("window_is_image", (2, 3, 5, 3), (3, 5), padding="valid"),
    Case("valid_window_beyond_image", (2, 3, 4, 3), (5, 5), padding="valid"),
    Case("strides_beyond_image", (1, 3, 4, 8), (3, 3), (5, 7)),
    Case("only_centres_inside", (1, 4, 4, 2), (3, 3), (1, 1), (4, 4)),
    Case("one_pixel", (3, 1, 1, 5), (3, 3)),
)
BY_NAME = {case.name: case for case in CASES}
IDS = [case.name for case in CASES]
# One geometry of each kind: few channels, many channels, everything at once, padding "valid".
REPRESENTATIVE = ("plain", "unequal_strides", "everything_at_once", "everything_valid")
# For tests that call an already tested kernel in another way: one geometry of each kind, and borderline geometries.
EXTENDED = (
    *REPRESENTATIVE,
    "one_channel_window_beyond_image",
    "two_heads_of_16",
    "valid_window_beyond_image",
    "one_pixel",
)


def parametrize(*names):
    """Runs a test for the named cases."""
    return pytest.mark.parametrize("case", [BY_NAME[name] for name in names], ids=names)


def parametrize_all(*fast):
    """Runs a test for every case. All but the named cases are slow tests."""
    marks = {case.name: () if case.name in fast else pytest.mark.slow for case in CASES}
    return pytest.mark.parametrize("case", [pytest.param(case, marks=marks[case.name], id=case.name) for case in CASES])


def values(shape, *key):
    """Draws normally distributed numbers, rounded so that every dtype represents them exactly.

    The numbers depend on the shape and the key only.
    """
    generator = np.random.default_rng([zlib.crc32(repr(key).encode()), *shape])
    return np.clip(np.round(16 * generator.standard_normal(shape)), -64, 64) / 16


def operands(op, case, key=0):
    return [values(case.operand_shape(role), key, role) for role in op.roles]


def tensors(arrays, dtype):
    return [tf.cast(tf.constant(array, tf.float64), dtype) for array in arrays]


def with_layout(value, role, data_format):
    """Transposes a channels-last operand to the layout that the public function expects."""
    has_layout = data_format == "channels_first" and role in ("inputs", "spatial")
    return tf.transpose(value, [0, 3, 1, 2]) if has_layout else value


def apply(op, case, tensors, data_format="channels_last"):
    """Calls the public function on channels-last tensors. The result is channels-last, too."""
    arguments = [with_layout(value, role, data_format) for value, role in zip(tensors, op.roles)]
    options = dict(op.options, **case.window, data_format=data_format)
    if op.function is ops.local_filter2d:
        options["kernel_size"] = case.kernel_size
    if op.takes_heads:
        options["heads"] = case.heads
    output = op.function(*arguments, **options)
    return tf.transpose(output, [0, 2, 3, 1]) if data_format == "channels_first" else output


def unknown_sizes(shape, role):
    """Returns `shape` with None for all sizes except the window, which channel filters carry in their shape."""
    known = {"channel": (1, 2), "bank": (1, 2), "banks": (3, 4)}.get(role, ())
    return [size if axis in known else None for axis, size in enumerate(shape)]


def run(function, arguments, mode, implementation):
    """Runs `function` eagerly, as a graph, or compiled by XLA."""
    if mode != "eager":
        function = tf.function(function, jit_compile=mode == "xla")
    with keras_dynfilter.implementation(implementation):
        return function(*arguments)


def gradients(op, case, tensors, upstream, data_format="channels_last"):
    """Computes the gradients of `sum(upstream * op)` with respect to every operand."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = apply(op, case, tensors, data_format)
    return tape.gradient(output, tensors, output_gradients=upstream)


@dataclasses.dataclass(frozen=True)
class Truth:
    """Operands, an upstream gradient and the true results.

    `output_scale` and `gradient_scales` are the sums of the absolute values of the terms, which bound rounding errors.
    """

    operands: list
    upstream: np.ndarray
    output: np.ndarray
    output_scale: np.ndarray
    gradients: list
    gradient_scales: list
    terms: int


@functools.cache
def truth(op, case):
    """Computes the true results of an op in a case with the reference implementation."""
    arrays = operands(op, case)
    upstream = values(case.output_shape(op), "grad")
    absolute = [np.abs(array) for array in arrays]
    terms = np.prod(case.kernel_size) + np.prod(case.out_size) + case.shape[3] + case.maps
    if op.kind is None:
        forward = getattr(reference, op.name)
        backward = getattr(reference, f"{op.name}_gradients")
        return Truth(
            arrays,
            upstream,
            forward(*arrays, **case.window),
            forward(*absolute, **case.window),
            backward(*arrays, upstream, **case.window),
            backward(*absolute, np.abs(upstream), **case.window),
            terms,
        )
    geometry = dict(case.geometry, heads=case.heads)
    split, scales = factors(op, arrays), factors(op, absolute)
    scale_kind = op.kind
    if op.kind == "softmax":
        probabilities = reference.softmax(split[1], case.heads)
        scales, scale_kind = (scales[0], probabilities, None), "spatial"
    bounds = reference.filter2d_gradients(*scales, scale_kind, np.abs(upstream), **geometry)
    if op.kind == "softmax":
        bounds = (bounds[0], reference.softmax_gradient(probabilities, bounds[1], case.heads, sign=1), None)
    return Truth(
        arrays,
        upstream,
        reference.filter2d(*split, op.kind, **geometry),
        reference.filter2d(*scales, scale_kind, **geometry),
        in_order(op, reference.filter2d_gradients(*split, op.kind, upstream, **geometry)),
        in_order(op, bounds),
        terms,
    )


def factors(op, arrays):
    """Returns `(inputs, spatial, channel)` from operands in the order of the public function."""
    by_role = dict(zip(op.roles, arrays))
    return tuple(by_role.get(role) for role in ("inputs", "spatial", "channel"))


def in_order(op, by_factor):
    """Returns operands in the order of the public function from `(inputs, spatial, channel)`."""
    by_role = dict(zip(("inputs", "spatial", "channel"), by_factor))
    return [by_role[role] for role in op.roles]


def assert_close(actual, expected, scale, terms, dtype, slack=1.0):
    """Raises an error if `actual` differs from the truth by more than rounding explains.

    The bound allows accumulation in float32, or in float64 for float64, and one rounding of the result to `dtype`.

    Args:
        actual: A tensor.
        expected: The true values, an array.
        scale: Sum of the absolute values of the terms of every element.
        terms: Number of terms that are summed, at most.
        dtype: The dtype that `actual` must have.
        slack: Factor of the rounding of the result, for computations that round more than once.
    """
    dtype = tf.as_dtype(dtype)
    assert actual.dtype == dtype, f"expected {dtype.name}, got {actual.dtype.name}"
    assert tuple(actual.shape) == expected.shape, f"expected shape {expected.shape}, got {tuple(actual.shape)}"
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype.name, 0.0)
    accumulation = np.finfo(np.float64 if dtype == tf.float64 else np.float32).eps
    smallest = 2.0**-24 if dtype == tf.float16 else 0.0
    allowed = (terms + 16) * accumulation * scale + 1.001 * slack * (rounding * np.abs(expected) + smallest)
    got = tf.cast(actual, tf.float64).numpy()
    if not np.all(np.isfinite(got)):
        raise AssertionError(f"{np.sum(~np.isfinite(got))} of {got.size} results are not finite")
    excess = np.abs(got - expected) - allowed
    if got.size and excess.max() > 0:
        worst = np.unravel_index(excess.argmax(), got.shape)
        raise AssertionError(
            f"{np.sum(excess > 0)} of {got.size} results are off. Worst at {tuple(int(i) for i in worst)}: "
            f"expected {expected[worst]:.9g} within {allowed[worst]:.3g}, got {got[worst]:.9g}"
        )
