# SPDX-License-Identifier: Apache-2.0
"""Tests the op that projects every pixel and averages every channel, and its gradients."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import pixel_projection

# (shape of the images, columns): whole and partial SIMD vectors, one and several blocks of columns, odd sizes.
SHAPES = [((2, 5, 7, 64), 9), ((1, 3, 5, 3), 9), ((2, 9, 8, 17), 25), ((3, 1, 1, 40), 1), ((2, 16, 21, 33), 36)]
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-13}


def operands(shape, columns, dtype):
    rng = np.random.default_rng(0)
    arrays = (rng.standard_normal(size) for size in (shape, (shape[-1], columns), columns))
    return [tf.cast(array, dtype) for array in arrays]


def expected(inputs, kernel, bias):
    inputs, kernel, bias = (np.asarray(tf.cast(value, "float64")) for value in (inputs, kernel, bias))
    return inputs @ kernel + bias, inputs.mean((1, 2))


def compare(results, expected, dtype):
    for actual, wanted in zip(results, expected):
        tolerance = TOLERANCE[dtype] * max(1.0, np.abs(wanted).max(initial=0))
        assert actual.dtype == dtype
        np.testing.assert_allclose(np.asarray(tf.cast(actual, "float64")), wanted, rtol=0, atol=tolerance)


@pytest.mark.legacy
@pytest.mark.parametrize("shape, columns", SHAPES)
def test_values(shape, columns, dtype, implementation):
    tensors = operands(shape, columns, dtype)
    with keras_dynfilter.implementation(implementation):
        compare(pixel_projection.project_and_pool(*tensors), expected(*tensors), dtype)


@pytest.mark.parametrize("shape, columns", SHAPES[::2])
def test_under_xla(shape, columns, dtype, native_xla):
    tensors = operands(shape, columns, dtype)
    with keras_dynfilter.implementation("native"):
        compare(tf.function(pixel_projection.project_and_pool, jit_compile=True)(*tensors), expected(*tensors), dtype)


@pytest.mark.legacy
@pytest.mark.parametrize("shape, columns", SHAPES[1:3])
def test_gradients_of_first_and_second_order(shape, columns, native_library):
    tensors = operands(shape, columns, "float64")
    upstream = [tf.random.normal(value.shape, dtype="float64") for value in expected(*tensors)]
    seconds = [tf.random.normal(value.shape, dtype="float64") for value in tensors]

    def gradients(name):
        with keras_dynfilter.implementation(name), tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                outputs = pixel_projection.project_and_pool(*tensors)
            first = inner.gradient(outputs, tensors, output_gradients=upstream)
            product = tf.add_n([tf.reduce_sum(one * other) for one, other in zip(first, seconds)])
        return [*first, *outer.gradient(product, tensors[:2])]

    for actual, wanted in zip(gradients("native"), gradients("composite")):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def test_xla_calls_the_compiled_kernel_on_cpus(native_xla):
    tensors = operands((2, 16, 21, 33), 36, "float32")
    with keras_dynfilter.implementation("native"):
        compiled = tf.function(pixel_projection.project_and_pool, jit_compile=True)
        for one, other in zip(compiled(*tensors), pixel_projection.project_and_pool(*tensors)):
            np.testing.assert_array_equal(one, other)
        assert "keras_dynfilter_project_and_pool" in compiled.experimental_get_compiler_ir(*tensors)(stage="hlo")


@pytest.mark.parametrize("axis", [0, 1])
def test_bounded_sizes_under_xla(axis, native_xla):
    """XLA knows only an upper bound of the number of images or rows that a mask keeps."""
    images, kernel, bias = operands((3, 3, 4, 20), 9, "float32")
    keep = tf.constant([True, False, True])

    def function(images):
        return pixel_projection.project_and_pool(tf.boolean_mask(images, keep, axis=axis), kernel, bias)

    with keras_dynfilter.implementation("native"):
        results = tf.function(function, jit_compile=True)(images)
    compare(results, expected(np.compress(keep, images, axis=axis), kernel, bias), "float32")


@pytest.mark.parametrize("shape, columns", [((0, 4, 4, 8), 9), ((2, 0, 4, 8), 9), ((2, 4, 4, 0), 9), ((2, 4, 4, 8), 0)])
def test_empty_under_xla(shape, columns, native_xla):
    tensors = operands(shape, columns, "float32")
    with keras_dynfilter.implementation("native"):
        compiled = tf.function(pixel_projection.project_and_pool, jit_compile=True)(*tensors)
        for one, other in zip(compiled, pixel_projection.project_and_pool(*tensors)):
            np.testing.assert_array_equal(one, other)


@pytest.mark.legacy
def test_the_mean_of_many_pixels(native_library):
    """Equal pixels round in one direction: the error of a single sum over all pixels would be more than 1e-3."""
    inputs = tf.fill([1, 700, 701, 3], np.float32(0.1))
    with keras_dynfilter.implementation("native"):
        _, means = pixel_projection.project_and_pool(inputs, tf.zeros([3, 1]), tf.zeros([1]))
    np.testing.assert_allclose(means, inputs[:, 0, 0], rtol=1e-5)


@pytest.mark.legacy
def test_nan_affects_its_pixel_and_its_channel_only(native_library):
    inputs, kernel, bias = operands((1, 3, 3, 20), 9, "float32")
    inputs = inputs.numpy()
    inputs[0, 1, 1, 4] = np.nan
    with keras_dynfilter.implementation("native"):
        projected, means = pixel_projection.project_and_pool(inputs, kernel, bias)
    wrong = np.isnan(projected).all(axis=-1)
    assert wrong[0, 1, 1] and wrong.sum() == 1
    assert np.flatnonzero(np.isnan(means)).tolist() == [4]


@pytest.mark.legacy
@pytest.mark.parametrize("shape, columns", [((0, 4, 4, 8), 9), ((2, 0, 4, 8), 9), ((2, 4, 4, 0), 9), ((2, 4, 4, 8), 0)])
def test_empty(shape, columns, native_library):
    tensors = operands(shape, columns, "float32")
    with keras_dynfilter.implementation("native"):
        projected, means = pixel_projection.project_and_pool(*tensors)
    assert projected.shape == (*shape[:3], columns) and means.shape == (shape[0], shape[3])
    np.testing.assert_allclose(projected, np.broadcast_to(tensors[2] if 0 in shape else 0.0, projected.shape))
    assert np.isnan(means).all() == (0 in shape[1:3] or 0 in means.shape)


@pytest.mark.legacy
def test_shapes_when_traced(native_library):
    specs = [tf.TensorSpec(shape, "float32") for shape in ((None, None, 8, 16), (16, 9), (9,))]
    with keras_dynfilter.implementation("native"):
        traced = tf.function(pixel_projection.project_and_pool, input_signature=specs).get_concrete_function()
    assert [tensor.shape.as_list() for tensor in traced.outputs] == [[None, None, 8, 9], [None, 16]]


@pytest.mark.legacy
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_many_pixels_in_half_precision(dtype, implementation):
    inputs, kernel, bias = (tf.cast(value, dtype) for value in (np.ones((1, 100, 200, 2)), np.ones((2, 1)), [0.0]))
    with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
        tape.watch([inputs, bias])
        projected, means = pixel_projection.project_and_pool(inputs, kernel, bias)
        inputs_gradient, bias_gradient = tape.gradient([projected, means], [inputs, bias])
    np.testing.assert_allclose(tf.cast(bias_gradient, "float32"), [20_000.0], rtol=0.01)
    np.testing.assert_allclose(tf.cast(inputs_gradient, "float32"), 1.0, rtol=0.01)
