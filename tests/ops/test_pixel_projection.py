# SPDX-License-Identifier: Apache-2.0
"""A linear map of every pixel and the means of the channels, made in one reading of the image."""

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import pixel_projection

# Shapes of the images, and columns: vectors with and without a rest, one and several blocks of columns, odd pixels.
SHAPES = [((2, 5, 7, 64), 9), ((1, 3, 5, 3), 9), ((2, 9, 8, 17), 25), ((3, 1, 1, 40), 1), ((2, 16, 21, 33), 36)]
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-13}


def operands(shape, columns, dtype):
    rng = np.random.default_rng(0)
    arrays = (rng.standard_normal(size) for size in (shape, (shape[-1], columns), columns))
    return [tf.cast(array, dtype) for array in arrays]


def expected(inputs, kernel, bias):
    inputs, kernel, bias = (np.asarray(tf.cast(value, "float64")) for value in (inputs, kernel, bias))
    return inputs @ kernel + bias, inputs.mean((1, 2))


def compare(actual, wanted, dtype):
    for one, other in zip(actual, wanted):
        tolerance = TOLERANCE[dtype] * max(1.0, np.abs(other).max(initial=0))
        assert one.dtype == dtype
        np.testing.assert_allclose(np.asarray(tf.cast(one, "float64")), other, rtol=0, atol=tolerance)


@pytest.mark.legacy
@pytest.mark.parametrize("shape, columns", SHAPES)
def test_values(shape, columns, dtype, implementation):
    given = operands(shape, columns, dtype)
    with keras_dynfilter.implementation(implementation):
        compare(pixel_projection.project_and_pool(*given), expected(*given), dtype)


@pytest.mark.parametrize("shape, columns", SHAPES[::2])
def test_under_xla(shape, columns, dtype, native_xla):
    given = operands(shape, columns, dtype)
    with keras_dynfilter.implementation("native"):
        compare(tf.function(pixel_projection.project_and_pool, jit_compile=True)(*given), expected(*given), dtype)


@pytest.mark.legacy
@pytest.mark.parametrize("shape, columns", SHAPES[1:3])
def test_gradients_of_both_orders(shape, columns, native_library):
    given = operands(shape, columns, "float64")
    cotangents = [tf.random.normal(value.shape, dtype="float64") for value in expected(*given)]
    seconds = [tf.random.normal(value.shape, dtype="float64") for value in given]

    def gradients(name):
        with keras_dynfilter.implementation(name), tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as inner:
                inner.watch(given)
                outputs = pixel_projection.project_and_pool(*given)
            first = inner.gradient(outputs, given, output_gradients=cotangents)
            product = tf.add_n([tf.reduce_sum(one * other) for one, other in zip(first, seconds)])
        return [*first, *outer.gradient(product, given[:2])]

    for actual, wanted in zip(gradients("native"), gradients("composite")):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def test_under_xla_on_cpus_by_the_same_kernel(native_xla):
    given = operands((2, 16, 21, 33), 36, "float32")
    with keras_dynfilter.implementation("native"):
        compiled = tf.function(pixel_projection.project_and_pool, jit_compile=True)
        for one, other in zip(compiled(*given), pixel_projection.project_and_pool(*given)):
            np.testing.assert_array_equal(one, other)
        assert "keras_dynfilter_project_and_pool" in compiled.experimental_get_compiler_ir(*given)(stage="hlo")


@pytest.mark.parametrize("axis", [0, 1])
def test_images_of_which_xla_knows_a_bound_only(axis, native_xla):
    images, kernel, bias = operands((3, 3, 4, 20), 9, "float32")
    live = tf.constant([True, False, True])

    def function(images):
        return pixel_projection.project_and_pool(tf.boolean_mask(images, live, axis=axis), kernel, bias)

    with keras_dynfilter.implementation("native"):
        found = tf.function(function, jit_compile=True)(images)
    compare(found, expected(np.compress(live, images, axis=axis), kernel, bias), "float32")


@pytest.mark.parametrize("shape, columns", [((0, 4, 4, 8), 9), ((2, 0, 4, 8), 9), ((2, 4, 4, 0), 9), ((2, 4, 4, 8), 0)])
def test_empty_under_xla(shape, columns, native_xla):
    given = operands(shape, columns, "float32")
    with keras_dynfilter.implementation("native"):
        compiled = tf.function(pixel_projection.project_and_pool, jit_compile=True)(*given)
        for one, other in zip(compiled, pixel_projection.project_and_pool(*given)):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "image, columns", [((1, 2**20, 2**20, 0), 2**20), ((2**24, 0, 1, 2**40), 0)], ids=["values", "means"]
)
def test_results_beyond_memory_are_refused_under_xla(image, columns, native_xla):
    """Of images that take no memory."""
    given = tf.zeros(image), tf.zeros((image[-1], columns)), tf.zeros(columns)
    with keras_dynfilter.implementation("native"), pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        tf.function(pixel_projection.project_and_pool, jit_compile=True)(*given)


def test_no_images_of_any_size_under_xla(native_xla):
    given = tf.zeros((0, 2**22, 2**22, 2**16)), tf.zeros((2**16, 9)), tf.zeros(9)
    with keras_dynfilter.implementation("native"):
        projected, means = tf.function(pixel_projection.project_and_pool, jit_compile=True)(*given)
    assert projected.shape == (0, 2**22, 2**22, 9) and means.shape == (0, 2**16)


@pytest.mark.legacy
def test_the_mean_of_many_pixels(native_library):
    """Of equal ones, whose sums round in one direction: a single sum of them is wrong by more than 1e-3."""
    inputs = tf.fill([1, 700, 701, 3], np.float32(0.1))
    with keras_dynfilter.implementation("native"):
        _, means = pixel_projection.project_and_pool(inputs, tf.zeros([3, 1]), tf.zeros([1]))
    np.testing.assert_allclose(means, inputs[:, 0, 0], rtol=1e-5)


@pytest.mark.legacy
def test_what_is_not_a_number_stays_with_its_pixel(native_library):
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
    given = operands(shape, columns, "float32")
    with keras_dynfilter.implementation("native"):
        projected, means = pixel_projection.project_and_pool(*given)
    assert projected.shape == (*shape[:3], columns) and means.shape == (shape[0], shape[3])
    np.testing.assert_allclose(projected, np.broadcast_to(given[2] if 0 in shape else 0.0, projected.shape))
    assert np.isnan(means).all() == (0 in shape[1:3] or 0 in means.shape)


REFUSED = pytest.mark.parametrize(
    "shapes, message",
    [
        (((4, 4, 8), (8, 9), (9,)), "Expected inputs"),
        (((1, 4, 4, 8), (1, 8, 9), (9,)), "Expected inputs"),
        (((1, 4, 4, 8), (7, 9), (9,)), "Expected kernel to have shape"),
        (((1, 4, 4, 8), (8, 9), (8,)), "Expected kernel to have shape"),
        (((1, 4, 4, 8), (8, 9), ()), "Expected inputs"),
    ],
)


@pytest.mark.legacy
@REFUSED
def test_raw_op_refuses(shapes, message, native_ops):
    raw = native_ops.keras_dynfilter_project_and_pool
    given = [tf.zeros(shape) for shape in shapes]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        raw(*given)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.function(lambda: raw(*given))()


@REFUSED
def test_raw_op_refuses_under_xla(shapes, message, native_xla, native_ops):
    """Of shapes that were not known when it was traced."""
    raw = native_ops.keras_dynfilter_project_and_pool
    compiled = tf.function(lambda *given: raw(*given), [tf.TensorSpec(None)] * 3, jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        compiled(*(tf.zeros(shape) for shape in shapes))


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
        by_inputs, by_bias = tape.gradient([projected, means], [inputs, bias])
    np.testing.assert_allclose(tf.cast(by_bias, "float32"), [20_000.0], rtol=0.01)
    np.testing.assert_allclose(tf.cast(by_inputs, "float32"), 1.0, rtol=0.01)
