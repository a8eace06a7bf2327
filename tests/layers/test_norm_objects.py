# SPDX-License-Identifier: Apache-2.0
"""Keras layers as the arguments `spatial_norm` and `channel_norm` of DDF2D and DDFUp2D."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import DDF2D, DDFUp2D, FilterNorm

pytestmark = pytest.mark.legacy


def normal(*shape):
    return np.random.default_rng(4).standard_normal(shape).astype("float32")


def test_a_norm_can_get_weights_elsewhere_later(tmp_path):
    """A norm that the caller builds after construction does not keep the layer from being saved or copied."""
    layer_norm, filter_norm = keras.layers.LayerNormalization(), FilterNorm("spatial", 3, scale="tap")
    inputs = keras.Input((8, 8, 9))
    hidden = DDF2D(3, spatial_norm=layer_norm)(layer_norm(inputs))
    model = keras.Model(inputs, DDF2D(3, spatial_norm=filter_norm)(filter_norm(hidden)))
    images = normal(2, 8, 8, 9)
    expected = model(images)

    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), expected)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(images), expected)
    for layer in model.layers:
        if isinstance(layer, DDF2D):
            assert "build_config" not in layer.get_config()["spatial_norm"]
            assert DDF2D.from_config(layer.get_config()).get_config() == layer.get_config()


def test_configurations_of_norms_with_weights_can_be_read():
    norm = keras.layers.LayerNormalization()
    norm(normal(2, 6, 6, 9))
    config = {**DDF2D(3).get_config(), "spatial_norm": keras.saving.serialize_keras_object(norm)}
    assert "build_config" in config["spatial_norm"]
    assert not DDF2D.from_config(config).generator.spatial_norm.built


@pytest.mark.parametrize("dtype, expected", [("mixed_float16", "float16"), ("float64", "float64")])
def test_layers_inside_a_norm_can_have_another_dtype(dtype, expected):
    """The layers inside a `Sequential` keep their own dtype, float32. The outputs of the norm are cast."""
    spatial, channel = (keras.Sequential([keras.layers.Dense(size)]) for size in (9, 36))
    layer = DDF2D(3, spatial_norm=spatial, channel_norm=channel, dtype=dtype)
    outputs = layer(normal(2, 6, 6, 4))
    assert outputs.dtype == expected and np.ptp(outputs) > 0


def test_norms_without_weights_can_be_functional_models():
    values = keras.Input((None, None, 9))
    norm = keras.Model(values, keras.layers.Activation("sigmoid")(values))
    images = normal(2, 6, 6, 4).astype("float16")
    layers = [DDF2D(3, spatial_norm=argument, dtype="mixed_float16") for argument in (norm, "sigmoid")]
    outputs = layers[0](images)
    layers[1].build(images.shape)
    layers[1].set_weights(layers[0].get_weights())
    np.testing.assert_allclose(outputs, layers[1](images), rtol=0.02, atol=1e-3)


class Halved(keras.layers.Layer):
    """Drops half of the values, without `compute_output_shape`."""

    def call(self, inputs):
        return inputs[..., ::2]


class HalvedInSecret(keras.layers.Layer):
    """Drops half of the values. Graphs do not know the shape of the outputs."""

    def call(self, inputs):
        return tf.py_function(lambda values: values[..., ::2], [inputs], inputs.dtype)


SIZES = {
    "spatial": (
        lambda: DDF2D(3, spatial_norm=keras.layers.Dense(8)),
        r"`spatial_norm` to keep the shape of the filters, \(None, 6, 6, 9\)\. Received: .* \(None, 6, 6, 8\)",
    ),
    "positions": (
        lambda: DDF2D(3, spatial_norm=keras.layers.AveragePooling2D(2)),
        r"`spatial_norm` to keep the shape of the filters, \(None, 6, 6, 9\)\. Received: .* \(None, 3, 3, 9\)",
    ),
    "channel": (
        lambda: DDF2D(3, channel_norm=keras.layers.Dense(9)),
        r"`channel_norm` to keep the shape of the filters, \(None, 36\)\. Received: .* \(None, 9\)",
    ),
    "phases": (
        lambda: DDFUp2D(2, channel_norm=keras.layers.Dense(18)),
        r"`channel_norm` to keep the shape of the filters, \(None, 36\)\. Received: .* \(None, 18\)",
    ),
    "upsampled": (
        lambda: DDFUp2D(2, spatial_norm=keras.layers.Dense(9)),
        r"`spatial_norm` to keep the shape of the filters, \(None, 6, 6, 36\)\. Received: .* \(None, 6, 6, 9\)",
    ),
}


@pytest.mark.parametrize("make, message", SIZES.values(), ids=SIZES)
def test_norms_that_change_the_shape_are_refused(make, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        make()(normal(2, 6, 6, 4))
    with pytest.raises(ValueError, match=f"Expected {message}"):
        make().build((None, 6, 6, 4))


def test_outputs_of_norms_are_checked_in_calls():
    for argument, expected in (("spatial_norm", "6, 6, 9"), ("channel_norm", "36")):
        with pytest.raises(
            ValueError, match=rf"Expected `{argument}` to keep the shape of the filters, \((2|None), {expected}\)"
        ):
            DDF2D(3, **{argument: Halved()})(normal(2, 6, 6, 4))


def test_samples_are_never_regrouped():
    """Half of the values of two samples would otherwise become the filters of one sample."""
    layer = DDF2D(3, branches="channel", channel_norm=HalvedInSecret())
    function = tf.function(layer, input_signature=[tf.TensorSpec((None, 6, 6, 4))])
    with pytest.raises(ValueError, match="`channel_norm` to keep the shape"):
        layer(normal(2, 6, 6, 4))
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(normal(2, 6, 6, 4))


class Fails(keras.layers.Layer):
    """Raises an error of the given type when it is called."""

    def __init__(self, error="ValueError", **kwargs):
        super().__init__(**kwargs)
        self.error = error

    def call(self, inputs):
        raise {"ValueError": ValueError, "TypeError": TypeError}[self.error]("wrong filters")

    def get_config(self):
        return {**super().get_config(), "error": self.error}


def two_outputs(**kwargs):
    return keras.layers.LSTM(36, return_sequences=True, return_state=True, **kwargs)


UNSUITABLE = {
    "recurrent": lambda: keras.layers.LSTM(9),
    "several outputs": two_outputs,
    "convolution": lambda: keras.layers.Conv3D(9, 1),
    "pooling": lambda: keras.layers.MaxPooling1D(2),
    "upsampling": lambda: keras.layers.UpSampling3D(2),
    "several inputs": keras.layers.Add,
    "attention": lambda: keras.layers.MultiHeadAttention(2, 2),
    "softmax of a missing axis": lambda: keras.layers.Softmax(axis=7),
    "ValueError": lambda: Fails("ValueError"),
    "TypeError": lambda: Fails("TypeError"),
}


@pytest.mark.parametrize("norm", UNSUITABLE.values(), ids=UNSUITABLE)
@pytest.mark.parametrize("argument", ["spatial_norm", "channel_norm"])
@pytest.mark.parametrize("make", [DDF2D, lambda **arguments: DDFUp2D(2, **arguments)], ids=["DDF2D", "DDFUp2D"])
def test_unsuitable_norms_are_refused(make, argument, norm):
    """Errors of other layers name the argument and the layer, whether it fails when it is built or called."""
    message = rf"Expected `{argument}` to (be a layer of one input, filters of shape|keep the shape of the filters,) \("
    with pytest.raises(ValueError, match=message):
        make(**{argument: norm()})(normal(2, 6, 6, 4))


class Unnamed(keras.layers.Layer):
    """Has no **kwargs, which a copy with another name needs."""

    def __init__(self):
        super().__init__()

    def call(self, inputs):
        return inputs


class Unsaved(keras.layers.Layer):
    """Has an argument that its configuration lacks."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("norm", [Unnamed, lambda: Unsaved(abs)], ids=["no kwargs", "no configuration"])
@pytest.mark.parametrize("argument", ["spatial_norm", "channel_norm"])
def test_norms_that_cannot_be_copied_are_refused(norm, argument):
    message = f"Expected `{argument}` to be a layer that `get_config` and `from_config` can copy.* Received: Un"
    with pytest.raises(ValueError, match=message) as raised:
        DDF2D(3, **{argument: norm()})
    assert raised.value.__cause__ is not None


def test_lambda_layers_are_refused():
    if not hasattr(keras, "ops"):
        pytest.skip("Keras 2 copies Lambda layers")
    with pytest.raises(
        ValueError, match=r"Expected `spatial_norm` to be a layer that.* Received: Lambda, which raised"
    ):
        DDF2D(3, spatial_norm=keras.layers.Lambda(lambda values: values))


def test_input_layers_are_refused():
    with pytest.raises(ValueError, match="Expected `spatial_norm` to"):
        DDF2D(3, spatial_norm=keras.layers.InputLayer((None, None, 9)))(normal(2, 6, 6, 4))
