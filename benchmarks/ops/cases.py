# SPDX-License-Identifier: Apache-2.0
"""The cases of `python -m benchmarks`: each applies an op to one shape, and lists the candidates to compare."""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

import keras_dynfilter as kdf
from benchmarks.ops.composite_forms import slices_for_xla
from keras_dynfilter.ops.geometry import Geometry


@dataclasses.dataclass(frozen=True)
class Case:
    """Describes an op with one window on images of one shape.

    Attributes:
        op: Name of the public function.
        note: Window and options, for reports.
        shape: Shape of the images, `(batch, height, width, channels)`.
        window: `(kernel_h, kernel_w)`.
        maps: Number of output channels.
        filters: Shapes of the filter arguments.
        apply: Applies the op to the images and the filters.
        slices: Computes the result of the op with one masked slice per tap, which XLA fuses into one loop. Under XLA,
            its forward pass is mostly faster than the composite ops, which are made for runtimes without XLA. None:
            there is no such form.
    """

    op: str
    note: str
    shape: tuple[int, ...]
    window: tuple[int, int]
    maps: int
    filters: tuple[tuple[int, ...], ...]
    apply: Callable
    slices: Callable | None = None

    def operands(self) -> list[tf.Tensor]:
        """Draws the images and the filters."""
        tf.random.set_seed(0)
        return [tf.random.normal(shape) for shape in (self.shape, *self.filters)]

    def minimum_bytes(self, backward: bool) -> int:
        """Returns the minimum number of bytes that must move between memory and processor.

        The forward pass reads every operand once and writes the result once. The backward pass also reads every operand
        and the upstream gradient, and writes the gradients with respect to the operands.
        """

        def count(shape):
            return 4 * math.prod(shape)

        result = count((*self.shape[:3], self.maps))
        operands = count(self.shape) + sum(count(shape) for shape in self.filters)
        return operands + result + ((2 * operands + result) if backward else 0)


def local_filter(shape, size, heads=1, normalization=None):
    batch, height, width, channels = shape
    note = f"{size}x{size}" + (f", {heads} heads" if heads > 1 else "") + (", softmax" if normalization else "")
    return Case(
        "local_filter2d",
        note,
        shape,
        (size, size),
        channels,
        ((batch, height, width, heads * size * size),),
        lambda x, s: kdf.ops.local_filter2d(x, s, size, heads=heads, normalization=normalization),
        lambda x, s: slices_for_xla(x, s, None, normalization or "spatial", Geometry.make(size, heads=heads)),
    )


def depthwise(shape, size):
    return Case(
        "dynamic_depthwise_conv2d",
        f"{size}x{size}",
        shape,
        (size, size),
        shape[3],
        ((shape[0], size, size, shape[3]),),
        kdf.ops.dynamic_depthwise_conv2d,
        lambda x, c: slices_for_xla(x, None, c, "channel", Geometry.make(size)),
    )


def ddf(shape, size, combine="mul"):
    batch, height, width, channels = shape
    return Case(
        "ddf2d",
        f"{size}x{size}, {combine}",
        shape,
        (size, size),
        channels,
        ((batch, size, size, channels), (batch, height, width, size * size)),
        lambda x, c, s: kdf.ops.ddf2d(x, c, s, combine=combine),
        lambda x, c, s: slices_for_xla(x, s, c, combine, Geometry.make(size)),
    )


def dynamic_conv(shape, size, maps):
    return Case(
        "dynamic_conv2d",
        f"{size}x{size}, {maps} maps",
        shape,
        (size, size),
        maps,
        ((shape[0], size, size, shape[3], maps),),
        kdf.ops.dynamic_conv2d,
    )


def local_conv(shape, size, maps):
    return Case(
        "local_conv2d",
        f"{size}x{size}, {maps} maps",
        shape,
        (size, size),
        maps,
        ((*shape[:3], size, size, shape[3], maps),),
        kdf.ops.local_conv2d,
    )


CASES = (
    ddf((2, 200, 300, 256), 3),
    ddf((4, 56, 56, 64), 3),
    ddf((4, 56, 56, 64), 3, "add"),
    ddf((4, 28, 28, 256), 5),
    local_filter((16, 64, 64, 1), 9),
    local_filter((16, 64, 64, 1), 9, normalization="softmax"),
    local_filter((4, 56, 56, 64), 3, heads=4),
    depthwise((4, 56, 56, 64), 3),
    dynamic_conv((64, 64, 64, 1), 9, 1),
    dynamic_conv((8, 28, 28, 32), 3, 32),
    local_conv((2, 28, 28, 8), 3, 8),
)

QUICK = (
    ddf((4, 56, 56, 64), 3),
    local_filter((4, 32, 32, 1), 9, normalization="softmax"),
    depthwise((4, 28, 28, 32), 3),
)


def candidates(case: Case) -> dict[str, tuple[Callable, list[tf.Tensor]]]:
    """Returns the candidates of a case by name: a `tf.function` that computes a forward pass, and its operands.

    "Ours" is the op of this package.
    """
    operands = case.operands()

    def composite(*arguments):
        with kdf.implementation("composite"):
            return case.apply(*arguments)

    x = operands[0]
    channels = case.shape[3]
    depthwise_kernel = tf.random.normal((*case.window, channels, 1))
    dense_kernel = tf.random.normal((*case.window, channels, case.maps))
    functions = {
        "ours": (tf.function(case.apply), operands),
        "ours, XLA": (tf.function(case.apply, jit_compile=True), operands),
        "composite": (tf.function(composite), operands),
        "composite, XLA": (tf.function(composite, jit_compile=True), operands),
    }
    if case.slices is not None:
        functions["slices, XLA"] = (tf.function(case.slices, jit_compile=True), operands)
    return {
        **functions,
        "TF depthwise": (
            tf.function(lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, 1, 1, 1], "SAME")),
            [x, depthwise_kernel],
        ),
        "TF dense": (tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME")), [x, dense_kernel]),
    }


def with_gradients(function, operands, xla):
    """Returns a function that computes the gradients with respect to all operands, for a fixed upstream gradient."""
    upstream = tf.random.normal(function(*operands).shape)

    def forward_and_backward(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        return tape.gradient(result, arguments, upstream)

    return tf.function(forward_and_backward, jit_compile=xla)
