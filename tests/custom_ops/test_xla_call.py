# SPDX-License-Identifier: Apache-2.0
"""The XLA custom call. Any graph can contain it, through the op XlaCallModule, so it checks all its arguments."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter as kdf

try:
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops
except ImportError:
    pytest.skip("this TensorFlow has no XlaCallModule in Python", allow_module_level=True)

FIELDS = dict(
    kind=0,
    derivative=0,
    dtype=0,
    batch=1,
    height=4,
    width=4,
    channels=1,
    out_height=4,
    out_width=4,
    heads=1,
    kernel_h=3,
    kernel_w=3,
    stride_h=1,
    stride_w=1,
    dilation_h=1,
    dilation_w=1,
    pad_h=1,
    pad_w=1,
)

CONTRADICTIONS = {
    "another dtype": dict(dtype=1),
    "unknown dtype": dict(dtype=9),
    "unknown kind": dict(kind=-1),
    "unknown derivative": dict(derivative=7),
    "a derivative that the kind does not have": dict(kind=3, derivative=2),
    "no heads": dict(heads=0),
    "no stride": dict(stride_h=0),
    "no dilation": dict(dilation_w=0),
    "an even window": dict(kernel_w=2),
    "negative height": dict(height=-4),
    "another height": dict(height=5, out_height=5),
    "an output that is too high": dict(out_height=400),
    "a pad beyond the window": dict(pad_h=3),
    "an overflow": dict(height=2**62, out_height=2**62),
    "a large image": dict(height=2**20, width=2**20, out_height=2**20, out_width=2**20),
    "a missing workspace": dict(kind=4, derivative=1),
}


def call(**changes):
    """Applies a local filter of ones to an image of ones, through the custom call, with changed fields of the
    problem."""
    problem = ", ".join(str(value) for value in {**FIELDS, **changes}.values())
    image, filters = "tensor<1x4x4x1xf32>", "tensor<1x4x4x9xf32>"
    module = f"""module @m {{
      func.func public @main(%x: {image}, %s: {filters}) -> {image} {{
        %0 = stablehlo.custom_call @keras_dynfilter_filter(%x, %s) {{
          api_version = 4 : i32, backend_config = {{problem = array<i64: {problem}>}}
        }} : ({image}, {filters}) -> {image}
        return %0 : {image}
      }}
    }}"""
    operands = [tf.ones([1, 4, 4, 1]), tf.ones([1, 4, 4, 9])]
    function = tf.function(
        lambda *args: gen_xla_ops.xla_call_module(
            args=list(args),
            version=9,
            module=module.encode(),
            Sout=[[1, 4, 4, 1]],
            Tout=[tf.float32],
            platforms=["CPU"],
        )[0],
        jit_compile=True,
    )
    return function(*operands)


def test_the_call_runs(native_xla):
    np.testing.assert_array_equal(call()[0, :, :, 0], [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])


def test_contradictions_are_refused_without_a_crash(native_xla, python):
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in CONTRADICTIONS:
        assert f"{name}: keras_dynfilter: the " in done.stdout, done.stdout


def project(inputs, kernel, bias, projected, means, workspace):
    """Calls the custom call of ProjectAndPool with buffers of these shapes, each written as "1x4x4x8"."""
    shapes = dict(zip("xkbpm", (inputs, kernel, bias, projected, means)))
    types = {name: f"tensor<{shape}xf32>" for name, shape in shapes.items()}
    operands = "\n".join(
        f"%{name} = stablehlo.broadcast_in_dim %one, dims = [] : (tensor<f32>) -> {types[name]}" for name in "xkb"
    )
    module = f"""module @m {{
      func.func public @main(%y: tensor<1xf32>) -> tensor<1xf32> {{
        %one = stablehlo.constant dense<1.0> : tensor<f32>
        {operands}
        %0:3 = stablehlo.custom_call @keras_dynfilter_project_and_pool(%x, %k, %b) {{
          api_version = 4 : i32, has_side_effect = true
        }} : ({types["x"]}, {types["k"]}, {types["b"]}) -> ({types["p"]}, {types["m"]}, tensor<{workspace}xui8>)
        return %y : tensor<1xf32>
      }}
    }}"""
    call_module = functools.partial(gen_xla_ops.xla_call_module, version=9, module=module.encode(), platforms=["CPU"])
    return tf.function(lambda y: call_module(args=[y], Sout=[[1]], Tout=[tf.float32])[0], jit_compile=True)(
        tf.ones([1])
    )


# Shapes with a size of zero, so that the buffers are empty while the products of the other sizes overflow.
HUGE = 512_409_557_603_043_104
OVERFLOWS = {
    "a product that wraps to zero": (f"{2**60}x0x0x{HUGE}", f"{HUGE}x0", "0", f"{2**60}x0x0x0", "0x0", "1024"),
    "pixels that overflow": (f"0x{2**40}x{2**40}x3", "3x0", "0", "0", "0x3", "1024"),
}


def test_the_projection_runs(native_xla):
    assert project("2x4x4x3", "3x5", "5", "2x4x4x5", "2x3", "4096").numpy() == 1


def test_overflowing_projections_are_refused_without_a_crash(native_xla, python):
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in OVERFLOWS:
        assert f"{name}: keras_dynfilter_project_and_pool: the sizes are too large" in done.stdout, done.stdout


def test_a_batch_with_a_size_known_only_by_a_bound(native_xla):
    x, s = tf.random.normal((3, 4, 4, 2)), tf.random.normal((3, 4, 4, 9))
    live = tf.constant([True, False, True])

    def masked(x, s):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = kdf.ops.local_filter2d(tf.boolean_mask(x, live), tf.boolean_mask(s, live), 3)
            total = tf.reduce_sum(y * y)
        return total, tape.gradient(total, x)

    expected, actual = masked(x, s), tf.function(masked, jit_compile=True)(x, s)
    for a, b in zip(expected, actual):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_an_image_with_a_size_known_only_by_a_bound_is_refused(native_xla):
    def masked(x, s, rows):
        return kdf.ops.local_filter2d(tf.boolean_mask(x, rows, axis=1), tf.boolean_mask(s, rows, axis=1), 3)

    arguments = tf.ones((1, 4, 4, 2)), tf.ones((1, 4, 4, 9)), tf.constant([True, True, False, True])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"Expected `inputs` to .* only a bound of axis 1.*composite"
    ):
        tf.function(masked, jit_compile=True)(*arguments)


if __name__ == "__main__":
    kdf.ops.local_filter2d(tf.zeros([1, 4, 4, 1]), tf.zeros([1, 4, 4, 9]), 3)
    calls = {name: functools.partial(call, **fields) for name, fields in CONTRADICTIONS.items()}
    calls |= {name: functools.partial(project, *shapes) for name, shapes in OVERFLOWS.items()}
    for label, run in calls.items():
        try:
            run()
            print(f"{label}: ran")
            sys.exit(1)
        except tf.errors.OpError as error:
            print(f"{label}: {error.message}")
