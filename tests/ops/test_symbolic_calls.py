# SPDX-License-Identifier: Apache-2.0
"""The ops accept the symbolic tensors of functional models, and the models can be saved, cloned and trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import ops

pytestmark = pytest.mark.legacy

# Op, shapes of its tensors without the batch, other arguments.
CALLS = {
    "local": (ops.local_filter2d, [(6, 8, 4), (6, 8, 18)], dict(kernel_size=3, heads=2, normalization="softmax")),
    "local, strides": (ops.local_filter2d, [(7, 9, 2), (4, 9, 15)], dict(kernel_size=(3, 5), strides=(2, 1))),
    "depthwise": (ops.dynamic_depthwise_conv2d, [(6, 8, 4), (3, 5, 4)], dict(dilation_rate=2)),
    "ddf": (ops.ddf2d, [(6, 8, 4), (3, 3, 4), (6, 8, 9)], dict(combine="add")),
    "conv": (ops.dynamic_conv2d, [(6, 8, 4), (3, 3, 4, 5)], dict(padding="valid")),
    "local conv": (ops.local_conv2d, [(6, 8, 4), (6, 8, 3, 3, 4, 5)], dict(strides=1)),
}


def tensors(shapes, batch=2):
    generator = np.random.default_rng(4)
    return [generator.standard_normal((batch, *shape)).astype("float32") for shape in shapes]


def first_axis_second(value):
    return np.moveaxis(value, -1, 1) if isinstance(value, np.ndarray) else (value[-1], *value[:-1])


@pytest.mark.parametrize("op, shapes, arguments", CALLS.values(), ids=CALLS)
def test_models_of_ops(op, shapes, arguments, tmp_path):
    """A model computes what the op computes, its shapes are known, and files and clones of it agree."""
    inputs = [keras.Input(shape) for shape in shapes]
    outputs = op(*inputs, **arguments)
    model = keras.Model(inputs, outputs)
    values = tensors(shapes)
    expected = op(*values, **arguments)
    assert tuple(outputs.shape) == (None, *expected.shape[1:])
    np.testing.assert_array_equal(model(values), expected)
    np.testing.assert_array_equal(model.predict(values, verbose=0), expected)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(values), expected)
    np.testing.assert_array_equal(keras.models.clone_model(model)(values), expected)


def test_unknown_sizes_and_channels_first():
    image, filters = keras.Input((4, None, None)), keras.Input((9, None, None))
    outputs = ops.local_filter2d(image, filters, 3, data_format="channels_first")
    assert tuple(outputs.shape) == (None, 4, None, None)
    values = [first_axis_second(value) for value in tensors([(6, 8, 4), (6, 8, 9)])]
    expected = ops.local_filter2d(*values, 3, data_format="channels_first")
    np.testing.assert_array_equal(keras.Model([image, filters], outputs)(values), expected)


def test_constants_beside_symbolic_tensors(tmp_path):
    image = keras.Input((6, 8, 1), batch_size=2)
    filters = tensors([(3, 3, 1)])[0]
    model = keras.Model(image, ops.dynamic_depthwise_conv2d(image, filters))
    values = tensors([(6, 8, 1)])[0]
    expected = ops.dynamic_depthwise_conv2d(values, filters)
    np.testing.assert_array_equal(model(values), expected)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(values), expected)


def test_names_and_keywords():
    image, filters = keras.Input((6, 8, 1)), keras.Input((6, 8, 9))
    once = ops.local_filter2d(inputs=image, filters=filters, kernel_size=3)
    model = keras.Model([image, filters], ops.local_filter2d(once, filters, 3))
    names = [layer.name for layer in model.layers if layer.name.startswith("local_filter2d")]
    assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes(dtype):
    """As elsewhere, the result has the dtype of the inputs, whatever the dtype policy of Keras."""
    image, filters = keras.Input((6, 8, 1), dtype=dtype), keras.Input((6, 8, 9), dtype=dtype)
    outputs = ops.local_filter2d(image, filters, 3)
    assert tf.as_dtype(outputs.dtype).name == dtype
    values = [value.astype(dtype) for value in tensors([(6, 8, 1), (6, 8, 9)])]
    assert keras.Model([image, filters], outputs)(values).dtype == dtype


def test_bad_arguments_have_the_errors_of_the_op():
    image, filters = keras.Input((6, 8, 1)), keras.Input((6, 8, 8))
    with pytest.raises(ValueError, match=r"Expected `filters` to have"):
        ops.local_filter2d(image, filters, 3)
    with pytest.raises(ValueError, match=r"Expected `normalization` to be"):
        ops.local_filter2d(image, filters, 3, normalization="batch")
    with pytest.raises(TypeError, match=r"kernel_size"):
        ops.local_filter2d(image, filters)


def test_training_through_an_op():
    image = keras.Input((6, 8, 1))
    filters = keras.layers.Conv2D(9, 1, name="logits")(image)
    model = keras.Model(image, ops.local_filter2d(image, filters, 3, normalization="softmax"))
    model.compile("sgd", "mse")
    before = model.get_layer("logits").get_weights()[0]
    values = tensors([(6, 8, 1)])[0]
    model.fit(values, np.roll(values, 1, axis=2), verbose=0)
    assert np.any(model.get_layer("logits").get_weights()[0] != before)
