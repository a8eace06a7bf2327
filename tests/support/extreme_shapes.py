# SPDX-License-Identifier: Apache-2.0
"""Calls of the raw ops with sizes of zero and with huge windows, strides, dilations and images of no bytes. Their
operands are small, so each call has to end at once.

    python -m tests.support.extreme_shapes eager 20    runs 20 calls of every op; also `graph` and `xla`

Each call is printed before it runs. If it takes ten minutes, the process prints where it hangs, and ends.
"""

import dataclasses
import faulthandler
import functools
import itertools
import random
import sys

import numpy as np
import tensorflow as tf

from tests.support import raw_ops

HANG_SECONDS = 600  # only to end the process; the calls take milliseconds
MAX_ELEMENTS = 2**21  # of an operand or result
MAX_PRODUCTS = 2**25
MAX_SIZES = 2**48  # the limit of the ops for the product of the sizes of a tensor, where zeros count as ones
LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of an image with its window."""

    size: int
    window: int = 3
    stride: int = 1
    dilation: int = 1
    padding: str = "same"

    @property
    def pad(self):
        return (self.window - 1) * self.dilation // 2 if self.padding == "same" else 0

    @property
    def out_size(self):
        last = self.size + 2 * self.pad - (self.window - 1) * self.dilation - 1
        return last // self.stride + 1 if last >= 0 else 0

    def taps_of_outputs(self):
        """Returns the first tap and the end of the taps that are inside the image, for every output."""
        origins = np.arange(self.out_size, dtype=np.int64) * self.stride - self.pad
        begin = np.maximum(-(origins // self.dilation), 0)
        end = np.minimum(-((origins - self.size) // self.dilation), self.window)
        return begin, np.maximum(end, begin)


@functools.cache
def products(axis):
    """Returns the number of products along an axis: the pairs of an output and a tap inside the image."""
    if 0 in (axis.size, axis.out_size) or max(axis.size, axis.out_size) > MAX_ELEMENTS:
        return 0
    begin, end = axis.taps_of_outputs()
    return int((end - begin).sum())


@functools.cache
def counts(axis):
    """Returns the number of products of every output, input and tap of an axis."""
    begin, end = axis.taps_of_outputs()
    changes, inputs = np.zeros(axis.window + 1, np.int64), np.zeros(axis.size)
    np.add.at(changes, begin, 1)
    np.add.at(changes, end, -1)
    if axis.window < axis.out_size:
        for offset in np.arange(axis.window, dtype=np.int64) * axis.dilation - axis.pad:
            first = max(-(offset // axis.stride), 0)  # the first output whose tap is not before the image
            last = min(-((offset - axis.size) // axis.stride), axis.out_size)
            inputs[first * axis.stride + offset : max(last, first) * axis.stride + offset : axis.stride] += 1
    else:
        for output, (first, last) in enumerate(zip(begin, end)):
            start = output * axis.stride - axis.pad + first * axis.dilation
            inputs[start : start + (last - first) * axis.dilation : axis.dilation] += 1
    return {"grad": end - begin, "inputs": inputs, "taps": np.cumsum(changes)[:-1]}


@dataclasses.dataclass(frozen=True)
class Call:
    """Two axes, and the sizes of a batch."""

    rows: Axis
    columns: Axis
    batch: int = 1
    channels: int = 1
    heads: int = 1

    def shape(self, operand):
        """Returns the shape of an operand; "grad" is also the shape of the output."""
        taps = self.rows.window * self.columns.window
        return {
            "inputs": (self.batch, self.rows.size, self.columns.size, self.channels),
            "grad": (self.batch, self.rows.out_size, self.columns.out_size, self.channels),
            "spatial": (self.batch, self.rows.out_size, self.columns.out_size, self.heads * taps),
            "channel": (self.batch, self.rows.window, self.columns.window, self.channels),
        }[operand]

    def attributes(self, op):
        values = dict(padding=self.rows.padding)
        for side, axis in (("h", self.rows), ("w", self.columns)):
            values |= {f"kernel_{side}": axis.window, f"stride_{side}": axis.stride, f"dilation_{side}": axis.dilation}
        if op.kind != "channel":
            values["heads"] = self.heads
        if op.kind in ("mul", "add") and op.result in ("grad", "inputs"):
            values["combine"] = op.kind
        return values

    def fits(self, op):
        """Whether the call is valid, and its tensors and products are few."""
        taps = self.rows.window * self.columns.window
        if self.channels % self.heads or taps * self.heads > LARGEST or self.rows.padding != self.columns.padding:
            return False
        shapes = [self.shape(operand) for operand in {*op.operands, op.result} - {"input_size"}]
        total = products(self.rows) * products(self.columns) * self.batch * self.channels
        return (
            all(np.prod(np.array(shape, object)) <= MAX_ELEMENTS for shape in shapes)
            and all(np.prod(np.maximum(np.array(shape, object), 1)) <= MAX_SIZES for shape in shapes)
            and total <= MAX_PRODUCTS
        )

    def expected(self, op):
        """Returns the result of the op for operands of ones."""
        shape = self.shape(op.result)
        if 0 in shape or (op.result in ("inputs", "channel") and 0 in self.shape("grad")):
            return np.zeros(shape)
        taps, head_channels = self.rows.window * self.columns.window, self.channels / self.heads
        value = {"softmax": 1 / taps, "add": 2.0}.get(op.kind, 1.0)
        if op.result in ("grad", "inputs"):
            return np.broadcast_to(
                value * np.outer(counts(self.rows)[op.result], counts(self.columns)[op.result])[None, :, :, None],
                shape,
            )
        if op.result == "channel":
            sums = np.outer(counts(self.rows)["taps"], counts(self.columns)["taps"])
            return np.broadcast_to(sums[None, :, :, None], shape)
        inside = [
            (np.arange(axis.window) >= begin[:, None]) & (np.arange(axis.window) < end[:, None])
            for axis in (self.rows, self.columns)
            for begin, end in [axis.taps_of_outputs()]
        ]
        sums = head_channels * (inside[0][:, None, :, None] & inside[1][None, :, None, :])
        if op.kind == "softmax":
            sums = (sums - sums.mean(axis=(2, 3), keepdims=True)) / taps
        sums = sums.reshape(1, self.rows.out_size, self.columns.out_size, 1, taps)
        return np.broadcast_to(sums, (self.batch, *sums.shape[1:3], self.heads, taps)).reshape(shape)


# A loop over all taps, all rows, or all pairs of them takes hours for some pairs of these axes.
AXES = (
    Axis(4),
    Axis(5, 5, 2, 3),
    Axis(1, 1),
    *(Axis(size, padding=padding) for size in (0, 1, 2**20, 2**31 - 1) for padding in ("same", "valid")),
    Axis(2**40, 1),
    Axis(2**20, 3, LARGEST),
    Axis(2**18, 2**18 + 1, 2**17, 2**12),
    Axis(2**20, 2**20 + 1, LARGEST, 2047),
    Axis(2**17, 2**20 + 1, 300, 2047),
    Axis(3, 2**20 + 1),
    Axis(3, 2**20 + 1, padding="valid"),
    Axis(7, 2**20 + 1, 3, 5),
    Axis(7, 2**20 + 1, 5, 2047),
    Axis(7, 2**20 + 1, LARGEST, 2046),
    Axis(0, 2**20 + 1, LARGEST, 2),
    Axis(0, 2**30 + 1, LARGEST),
    Axis(0, 2**30 + 1, padding="valid"),
)
SIZES = [(1, 1, 1), (3, 4, 2), (1, 16, 1), (0, 3, 1), (2, 0, 1), (0, 0, 7), (2, 0, 2**10), (2**20, 1, 1), (1, 2**20, 1)]


def calls_of(op, count):
    """Returns `count` calls that fit the op. The calls depend on the op only."""
    calls = [Call(*axes, *sizes) for axes in itertools.product(AXES, AXES) for sizes in SIZES]
    chosen = [call for call in calls if call.fits(op)]
    random.Random(f"{op.name} {op.kind}").shuffle(chosen)
    return chosen[:count]


# Sizes of ProjectAndPool: batch, height, width, channels, outputs. The products are at most MAX_SIZES, too.
PROJECTIONS = (
    (2**45, 0, 1, 0, 5),
    (2**46, 0, 3, 0, 0),
    (2**24, 2**22, 1, 0, 0),
    (1, 2**24, 2**24, 0, 0),
    (1, 2**24, 0, 2**20, 1),
    (1, 0, 2**24, 1, 2**20),
    (2**20, 0, 2**20, 1, 3),
    (0, 2**20, 2**20, 3, 2),
    (2**20, 1, 1, 1, 0),
    (2, 3, 5, 0, 4),
    (1, 2**18, 4, 1, 1),
)


def filled(shape, dtype="float32"):
    """Returns a tensor of ones. NumPy cannot make some of these tensors."""
    return tf.fill(tf.constant(shape, tf.int64), tf.ones((), dtype))


def prepared(function, mode):
    """Returns `function` for a mode. Graphs are traced without shapes."""
    if mode == "eager":
        return function

    def traced(**tensors):
        specs = {name: tf.TensorSpec(None, value.dtype) for name, value in tensors.items()}
        graph = tf.function(lambda **inputs: function(**inputs), autograph=False, jit_compile=mode == "xla")
        return graph.get_concrete_function(**specs)(**tensors)

    return traced


def check(library, op, call, mode, dtype):
    """Runs a call and compares the result with `Call.expected`."""
    tensors = {operand: filled(call.shape(operand), dtype) for operand in op.operands if operand != "input_size"}
    if "input_size" in op.operands:
        tensors["input_size"] = tf.constant([call.rows.size, call.columns.size], tf.int64)
    attributes = call.attributes(op)
    result = prepared(lambda **inputs: op(library, raw_ops.Call(inputs, attributes)), mode)(**tensors)
    assert tuple(result.shape) == call.shape(op.result)
    if 0 not in result.shape:
        np.testing.assert_allclose(np.asarray(tf.cast(result, "float64")), call.expected(op), rtol=1e-5, atol=1e-6)


def check_projection(library, sizes, mode, dtype):
    batch, height, width, channels, outputs = sizes
    tensors = dict(
        inputs=filled(sizes[:4], dtype), kernel=filled((channels, outputs), dtype), bias=filled((outputs,), dtype)
    )
    projected, means = prepared(library.keras_dynfilter_project_and_pool, mode)(**tensors)
    assert tuple(projected.shape) == (batch, height, width, outputs) and tuple(means.shape) == (batch, channels)
    if projected.shape.num_elements():
        np.testing.assert_array_equal(tf.cast(projected, "float64"), channels + 1)
    if means.shape.num_elements():
        np.testing.assert_array_equal(tf.cast(means, "float64"), 1 if height * width else np.nan)


def main(mode, count):
    from keras_dynfilter.ops.backends import library as library_module

    library = library_module.load().ops
    for op in raw_ops.OPS:
        for number, call in enumerate(calls_of(op, int(count))):
            # The sums of ones are exact in float64. Half types round them, and only have to end.
            print(f"{op.name} {op.kind} {call}", flush=True)
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            check(library, op, call, mode, ("float32", "float64")[number % 2])
    for number, sizes in enumerate(PROJECTIONS):
        print(f"project_and_pool {sizes}", flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        check_projection(library, sizes, mode, ("float32", "float64")[number % 2])
    faulthandler.cancel_dump_traceback_later()
    print("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])
