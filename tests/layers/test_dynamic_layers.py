# SPDX-License-Identifier: Apache-2.0
"""Layers with given or generated filters: user-defined generators, XLA support, regularizers, error messages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import DynamicConv2D, DynamicDepthwiseConv2D, DynamicLocalFilter2D
from keras_dynfilter.ops import backends

pytestmark = pytest.mark.legacy

LAYERS = [DynamicConv2D, DynamicDepthwiseConv2D, DynamicLocalFilter2D]
every_layer = pytest.mark.parametrize("cls", LAYERS)


def generator_for(cls):
    """Returns a generator for inputs of one channel and windows of 3x3."""
    if cls is DynamicLocalFilter2D:
        return keras.layers.Conv2D(9, 3, padding="same")
    return keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(9)])


def local(**options):
    return DynamicLocalFilter2D(**{"kernel_size": 3, **options})


def normal(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype("float32")


@keras.saving.register_keras_serializable("test_layers")
class SubclassedGenerator(keras.Model):
    """A generator that defines neither `build` nor `compute_output_shape`, as users may write it."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.convolution = keras.layers.Conv2D(channels, 3, padding="same")

    def call(self, inputs):
        return self.convolution(inputs)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def test_subclassed_generator(tmp_path):
    layer = DynamicLocalFilter2D(3, generator=SubclassedGenerator(9))
    inputs = keras.Input((6, 7, 2))
    model = keras.Model(inputs, layer(inputs))
    assert len(layer.trainable_weights) == 2
    expected = model(normal(2, 6, 7, 2))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(normal(2, 6, 7, 2)), expected, rtol=1e-6, atol=1e-6)

    wrong = DynamicLocalFilter2D(3, generator=SubclassedGenerator(10))
    with pytest.raises(ValueError, match="Expected the output of `generator` to have shape"):
        wrong(normal(2, 6, 7, 2))


def test_supports_jit_loads_the_library_only_when_it_is_read(monkeypatch):
    calls = []
    monkeypatch.setattr(backends, "supports_jit", lambda: bool(calls.append(None)))
    layer = DynamicLocalFilter2D(3)
    inputs = [keras.Input((4, 4, 1)), keras.Input((4, 4, 9))]
    keras.Model(inputs, layer(inputs))
    assert not calls
    assert layer.supports_jit is False and len(calls) == 1
    monkeypatch.setattr(backends, "supports_jit", lambda: True)
    assert layer.supports_jit is True
    layer.supports_jit = False
    assert layer.supports_jit is False


@pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 does not read supports_jit")
def test_keras_turns_jit_off_without_xla_kernels(monkeypatch):
    monkeypatch.setattr(backends, "supports_jit", lambda: False)
    model = keras.Sequential([keras.Input((4, 4, 1)), local(generator=keras.layers.Conv2D(9, 1))])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile


@every_layer
def test_models_without_a_known_input_shape_train(cls):
    arguments = dict(filters=1) if cls is DynamicConv2D else {}
    model = keras.Sequential([cls(kernel_size=3, **arguments, generator=generator_for(cls))])
    model.compile("sgd", "mse")
    images = normal(4, 5, 6, 1)
    model.fit(images, images, batch_size=4, verbose=0)
    assert len(model.trainable_weights) == 2


def test_filters_regularizer_adds_the_mean_over_the_batch():
    image, filters = normal(4, 5, 6, 1), normal(4, 5, 6, 10)
    layer = DynamicLocalFilter2D(3, dynamic_bias="after", filters_regularizer=keras.regularizers.L2(0.5))
    layer([image, filters])
    np.testing.assert_allclose(layer.losses, [0.5 * np.sum(filters**2) / 4], rtol=1e-5)
    halved = DynamicLocalFilter2D(3, filters_regularizer="l2", dtype="mixed_float16")
    halved([image, np.full((4, 5, 6, 9), 30.0)])  # the sum of squares is beyond float16
    np.testing.assert_allclose(halved.losses, [0.01 * 900 * 5 * 6 * 9], rtol=1e-5)


def test_generated_filters_of_another_dtype_are_cast():
    generator = keras.layers.Conv2D(9, 3, padding="same", dtype="float32")
    image = normal(2, 6, 7, 2)
    outputs = local(generator=generator, normalization="softmax", dtype="mixed_float16")(image)
    assert outputs.dtype == "float16"
    expected = local(generator=generator, normalization="softmax")(image)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.01)


CONSTRUCTOR_ERRORS = {
    "boolean window": (lambda: local(kernel_size=True), r"Expected `kernel_size` to be a positive .* kernel_size=True"),
    "boolean heads": (lambda: local(heads=True), r"Expected `heads` to be a positive integer.* heads=True"),
    "boolean filters": (lambda: DynamicConv2D(True, 3), r"Expected `filters` to be .* filters=True"),
    "huge depth": (lambda: local(depth_multiplier=2**31), r"Expected `depth_multiplier` to be at most .*=2147483648"),
    "huge window": (lambda: DynamicConv2D(1, 2**32), r"Expected `kernel_size` to be at most 2147483647\."),
    "no layout": (lambda: local(data_format=""), r"Expected `data_format` to be one of .* data_format=''"),
    "array": (lambda: local(separable=np.ones(2)), r"Expected `separable` to be one of False, True\..*array"),
    "even window": (lambda: local(kernel_size=4), r"Expected `kernel_size` to be odd.* kernel_size=\(4, 4\)"),
    "even depthwise": (lambda: DynamicDepthwiseConv2D(2), r"Expected `kernel_size` to be odd"),
    "window": (lambda: DynamicConv2D(1, "3"), r"Expected `kernel_size` to be a positive integer or a pair.*'3'"),
    "strides": (lambda: local(strides=0), r"Expected `strides` to be a positive integer or a pair.* strides=0"),
    "padding": (lambda: local(padding="causal"), r"Expected `padding` to be one of 'same', 'valid'.*'causal'"),
    "layout": (lambda: local(data_format="NHWC"), r"Expected `data_format` to be one of 'channels_last'.*'NHWC'"),
    "dilation": (lambda: local(dilation_rate=(1, 2, 3)), r"Expected `dilation_rate` to be .*\(1, 2, 3\)"),
    "heads": (lambda: local(heads=0), r"Expected `heads` to be a positive integer.* heads=0"),
    "depth_multiplier": (lambda: local(depth_multiplier=1.5), r"Expected `depth_multiplier` to be a positive .*=1\.5"),
    "conv filters": (lambda: DynamicConv2D(0, 3), r"Expected `filters` to be a positive integer.*=0"),
    "normalization": (
        lambda: local(normalization="l2"),
        r"Expected `normalization` to be one of None, 'softmax'.*'l2'",
    ),
    "separable": (lambda: local(separable="yes"), r"Expected `separable` to be one of False, True.*'yes'"),
    "bias": (lambda: local(dynamic_bias=True), r"Expected `dynamic_bias` to be one of None, 'before', 'after'.*=True"),
    "generator": (lambda: local(generator="conv"), r"Expected `generator` to be None or a Keras layer.*'conv'"),
    "separable strides": (
        lambda: local(separable=True, strides=2),
        r"Expected `strides` to be 1 and `padding` to be 'same' with separable=True.* strides=\(2, 2\), padding='same'",
    ),
    "separable valid": (lambda: local(separable=True, padding="valid"), r"with separable=True.*padding='valid'"),
    "bias strides": (
        lambda: local(dynamic_bias="before", strides=(1, 2)),
        r"`padding` to be 'same' with dynamic_bias=\"before\".* strides=\(1, 2\)",
    ),
    "bias valid": (lambda: local(dynamic_bias="before", padding="valid"), r"dynamic_bias=\"before\".*'valid'"),
}


@pytest.mark.parametrize("make, message", CONSTRUCTOR_ERRORS.values(), ids=CONSTRUCTOR_ERRORS)
def test_constructor_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


IMAGE = (2, 6, 7, 4)
CALL_ERRORS = {
    "no filters": (local(), [IMAGE], r"Expected `inputs` to be a list \[inputs, filters\], as the layer has no `gen"),
    "three": (local(), [IMAGE, (2, 6, 7, 9), IMAGE], r"a list \[inputs, filters\].*Received: 3 tensor"),
    "two guides": (
        local(generator=keras.layers.Conv2D(9, 1)),
        [IMAGE, IMAGE, IMAGE],
        r"Expected `inputs` to be a tensor, or a list \[inputs, guide\].* Received: 3 tensor",
    ),
    "rank": (local(), [(2, 6, 7), (2, 6, 7, 9)], r"Expected `inputs` to have rank 4 \(channels_last\).*\(2, 6, 7\)"),
    "heads": (local(heads=3), [IMAGE, (2, 6, 7, 27)], r"Expected `heads` to divide the channels.*heads=3, channels=4"),
    "channels": (
        local(),
        [IMAGE, (2, 6, 7, 10)],
        r"Expected `filters` to have shape \(2, 6, 7, 9\)\. Received: shape=\(2, 6, 7, 10\)",
    ),
    "size": (local(strides=2), [IMAGE, (2, 6, 7, 9)], r"Expected `filters` to have shape \(2, 3, 4, 9\)\. Received"),
    "layout": (
        local(data_format="channels_first"),
        [(2, 4, 6, 7), (2, 6, 7, 9)],
        r"Expected `filters` to have shape \(2, 9, 6, 7\)",
    ),
    "batch": (local(), [IMAGE, (3, 6, 7, 9)], r"Expected `filters` to have shape \(2, 6, 7, 9\)"),
    "bank": (
        DynamicConv2D(2, 3),
        [IMAGE, (2, 3, 3, 4, 1)],
        r"Expected `filters` to have shape \(2, 72\) or \(2, 3, 3, 4, 2\)\. Received: shape=\(2, 3, 3, 4, 1\)",
    ),
    "bank with bias": (
        DynamicConv2D(1, 3, dynamic_bias="after"),
        [IMAGE, (2, 3, 3, 4, 1)],
        r"Expected `filters` to have shape \(2, 37\)\. Received",
    ),
    "separable bank": (
        DynamicDepthwiseConv2D(3, separable=True),
        [IMAGE, (2, 3, 3, 4)],
        r"Expected `filters` to have shape \(2, 24\) or \(2, 6, 4\)\. Received",
    ),
    "generator": (
        DynamicConv2D(1, 3, generator=keras.layers.Dense(35)),
        [IMAGE, (2, 1)],
        r"Expected the output of `generator` to have shape \(2, 36\) or .* Received: shape=\(2, 35\)",
    ),
}


@pytest.mark.parametrize("layer, input_shapes, message", CALL_ERRORS.values(), ids=CALL_ERRORS)
def test_call_errors(layer, input_shapes, message):
    shapes = input_shapes if len(input_shapes) > 1 else input_shapes[0]
    with pytest.raises(ValueError, match=message):
        layer.compute_output_shape(shapes)
    with pytest.raises(ValueError, match=message):
        type(layer).from_config(layer.get_config()).build(shapes)
    fresh = type(layer).from_config(layer.get_config())
    tensors = [tf.zeros(shape) for shape in input_shapes]
    with pytest.raises(ValueError, match=message):
        fresh(tensors if len(tensors) > 1 else tensors[0])


def test_built_layers_check_the_next_shapes_too():
    layer = local()
    layer([tf.zeros(IMAGE), tf.zeros((2, 6, 7, 9))])
    with pytest.raises(ValueError, match=r"Expected `filters` to have shape \(2, 5, 7, 9\)"):
        layer([tf.zeros((2, 5, 7, 4)), tf.zeros((2, 6, 7, 9))])
    with pytest.raises(ValueError, match="Expected `inputs` to be a list"):
        layer(tf.zeros(IMAGE))


@pytest.mark.parametrize("cls", [DynamicConv2D, DynamicDepthwiseConv2D])
def test_unknown_channels(cls):
    with pytest.raises(ValueError, match="Expected `inputs` to have a known number of channels"):
        cls(*([1] if cls is DynamicConv2D else []), 3).compute_output_shape([(None, 8, 8, None), (None, 9)])
