# SPDX-License-Identifier: Apache-2.0
"""DDFUp2D: against a NumPy implementation, gradients, training, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.layers import DDFUp2D, FilterNorm
from tests.support import reference

pytestmark = pytest.mark.legacy
TOLERANCE = dict(rtol=1e-10, atol=1e-12)


def normal(*shape, seed=9):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def to_channels_first(value):
    """Transposes channels-last images to channels-first."""
    return np.moveaxis(np.asarray(value), 3, 1)


def in_layout(values, data_format):
    return [to_channels_first(value) for value in values] if data_format == "channels_first" else list(values)


def call_layer(layer, inputs):
    return layer(inputs if len(inputs) > 1 else inputs[0])


def filter_norm(values, axis, gain=1.0):
    """Computes `FilterNorm` in NumPy; `axis` is the axis of taps."""
    deviation = values.std(axis=axis, ddof=1, keepdims=True) + 1e-10
    return (values - values.mean(axis=axis, keepdims=True)) / deviation * gain / np.sqrt(values.shape[axis])


def phase_values(layer, phase, images, guide):
    """Computes one phase before normalisation: two convolutions of the images, or one convolution of the guide."""
    generator = layer.generator
    size = layer.heads * layer.geometry.taps
    columns = slice(phase * size, (phase + 1) * size)
    kernel, bias = generator.spatial_kernel.numpy()[:, columns], generator.spatial_bias.numpy()[columns]
    if guide is None:
        depthwise = generator.depthwise_kernel.numpy()[..., phase, None]
        features = tf.nn.depthwise_conv2d(images, depthwise, [1, 1, 1, 1], "SAME").numpy()
        features = features + generator.depthwise_bias.numpy()[:, phase]
    elif guide.shape[1] == images.shape[1]:
        features = guide
    else:
        features = guide[:, phase // layer.scale_factor :: layer.scale_factor]
        features = features[:, :, phase % layer.scale_factor :: layer.scale_factor]
    return features @ kernel + bias


def truth(layer, images, guide=None):
    """Computes the whole layer in NumPy, channels-last, phase by phase."""
    batch, height, width, channels = images.shape
    factor, taps = layer.scale_factor, layer.geometry.taps
    output = np.full((batch, height * factor, width * factor, channels), np.nan)
    gain = {"linear": 1.0, "relu": np.sqrt(2)}[layer.generator.spatial_norm.gain]
    for phase, branch in enumerate(layer.generator.channel_branches):
        values = phase_values(layer, phase, images, guide)
        spatial = filter_norm(values.reshape(batch, height, width, layer.heads, taps), -1, gain).reshape(values.shape)
        squeeze, expand = (
            [weight.numpy() for weight in (dense.kernel, dense.bias)] for dense in (branch.squeeze, branch.expand)
        )
        hidden = np.maximum(images.mean(axis=(1, 2)) @ squeeze[0] + squeeze[1], 0)
        values = (hidden @ expand[0] + expand[1]).reshape(batch, taps, channels)
        channel = filter_norm(values, 1, np.sqrt(taps)) * branch.norm.scale_weight.numpy()
        filtered = reference.filter2d(
            images,
            spatial,
            channel.reshape(batch, *layer.kernel_size, channels),
            layer.combine,
            kernel_size=layer.kernel_size,
            strides=(1, 1),
            dilation_rate=(1, 1),
            padding="same",
            heads=layer.heads,
        )
        output[:, phase // factor :: factor, phase % factor :: factor] = filtered
    return output


LAYERS = {
    "plain": (dict(), (4, 5, 6), None),
    "plain_3": (
        dict(scale_factor=3, kernel_size=5, heads=2, spatial_norm=FilterNorm("spatial", 5, gain="relu")),
        (3, 4, 4),
        None,
    ),
    "plain_add": (dict(combine="add", kernel_size=(1, 3)), (4, 3, 1), None),
    "guided": (dict(), (4, 5, 6), (4, 5, 3)),
    "guided_output": (dict(), (4, 5, 6), (8, 10, 1)),
    "guided_output_3": (dict(scale_factor=3, heads=2, squeeze_ratio=1), (2, 3, 4), (6, 9, 7)),
    "guided_input_add": (dict(guide_size="input", combine="add"), (3, 4, 2), (3, 4, 2)),
}
every_layer = pytest.mark.parametrize("arguments, image, guide", LAYERS.values(), ids=LAYERS)


@every_layer
def test_values(arguments, image, guide, data_format, implementation):
    layer = DDFUp2D(**arguments, data_format=data_format, dtype="float64")
    inputs = [normal(2, *image)] + ([] if guide is None else [normal(2, *guide)])
    with keras_dynfilter.implementation(implementation):
        output = call_layer(layer, in_layout(inputs, data_format))
    expected = truth(layer, *inputs)
    assert expected.std() > 0.05
    np.testing.assert_allclose(output, in_layout([expected], data_format)[0], **TOLERANCE)


@pytest.mark.parametrize("guide_size", [None, "input", "output"])
def test_unknown_sizes(guide_size):
    inputs = [keras.Input((None, None, 4))] + ([] if guide_size is None else [keras.Input((None, None, 3))])
    layer = DDFUp2D(2, guide_size=guide_size or "auto")
    model = keras.Model(inputs if guide_size else inputs[0], call_layer(layer, inputs))
    assert tuple(model.output_shape) == (None, None, None, 4)
    size = (10, 8) if guide_size == "output" else (5, 4)
    values = [normal(2, 5, 4, 4).astype("float32"), normal(2, *size, 3).astype("float32")][: len(inputs)]
    np.testing.assert_allclose(call_layer(model, values), truth(layer, *values), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "channels, guide, parameters",
    [(256, None, 560_368), (256, 256, 550_128), (32, None, 12_476), (32, 32, 11_196), (32, 3, 10_152)],
)
@pytest.mark.parametrize("times", [1, 2])
def test_parameter_counts(channels, guide, parameters, times):
    layer = DDFUp2D()
    shape = (None, 8, 8, channels)
    layer.build(shape if guide is None else [shape, (None, 8 * times, 8 * times, guide)])
    assert layer.count_params() == parameters


def test_phases_start_with_different_filters():
    layer = DDFUp2D(generator_initializer="glorot_uniform")
    output = layer(normal(1, 6, 6, 8).astype("float32")).numpy()
    phases = [output[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    for one in range(4):
        for other in range(one):
            assert np.abs(phases[one] - phases[other]).max() > 0.1


def test_initial_values():
    layer = DDFUp2D()
    layer.build((None, 8, 8, 512))
    generator = layer.generator
    kernels = dict(depthwise=generator.depthwise_kernel, spatial=generator.spatial_kernel)
    for name, weight in kernels.items():
        parts = np.split(weight.numpy(), 4, axis=-1)
        assert len({part.std() for part in parts}) == 4
        for part in parts:
            np.testing.assert_allclose(part.std(), np.sqrt(2 / 9), rtol=0.05, err_msg=name)
    for bias, fan_in in ((generator.depthwise_bias, 9), (generator.spatial_bias, 512)):
        limit = 1 / np.sqrt(fan_in)
        assert np.abs(bias.numpy()).max() <= limit and bias.numpy().std() > 0.3 * limit


def test_finite_differences_of_the_layer():
    """Checks the gradients with respect to the inputs, the guide and every weight along random directions."""
    images, guide = tf.constant(normal(1, 3, 4, 4)), tf.constant(normal(1, 6, 8, 3))
    for inputs in ([images], [images, guide]):
        layer = DDFUp2D(squeeze_ratio=1, dtype="float64")

        @tf.function
        def loss(inputs, layer=layer):
            return tf.reduce_sum(tf.sin(call_layer(layer, inputs)))

        loss(inputs)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(inputs)
        by_inputs, by_weights = tape.gradient(value, [inputs, layer.trainable_weights])
        directions = [normal(*value.shape, seed=1) for value in inputs]
        ends = []
        for step in (1e-5, -1e-5):
            ends.append(loss([value + step * direction for value, direction in zip(inputs, directions)]))
        actual = sum(tf.reduce_sum(gradient * direction) for gradient, direction in zip(by_inputs, directions))
        np.testing.assert_allclose(actual, (ends[0] - ends[1]) / 2e-5, rtol=1e-5)
        assert len(by_weights) == 4 * 5 + (4 if len(inputs) == 1 else 2)
        for weight, gradient in zip(layer.trainable_weights, by_weights):
            before, direction = weight.numpy(), normal(*weight.shape, seed=2)
            ends = []
            for step in (1e-5, -1e-5):
                weight.assign(before + step * direction)
                ends.append(loss(inputs))
            weight.assign(before)
            actual = tf.reduce_sum(gradient * direction)
            numeric = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(actual, numeric, rtol=1e-5, atol=1e-7, err_msg=weight.name)


def joint_model():
    inputs, guide = keras.Input((6, 6, 1)), keras.Input((12, 12, 2))
    active = dict(squeeze_ratio=1, generator_bias_initializer="ones")  # no ReLU of a bottleneck is 0 for all images
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = DDFUp2D(**active)([x, keras.layers.Conv2D(3, 3, padding="same")(guide)])
    x = DDFUp2D(**active)(keras.layers.AveragePooling2D(2)(x))
    return keras.Model([inputs, guide], keras.layers.Conv2D(1, 1, dtype="float32")(x))


def train(model):
    """Trains the model to enlarge images; returns the loss of every epoch."""
    targets = np.random.default_rng(3).uniform(size=(32, 12, 12, 1)).astype("float32")
    guide = np.concatenate([targets > 0.5, targets > 0.75], axis=-1).astype("float32")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    data = [targets[:, ::2, ::2], guide]
    return model.fit(data, targets, batch_size=8, epochs=12, shuffle=False, verbose=0).history["loss"]


def test_trains_and_saves(tmp_path):
    model = joint_model()
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = train(model)
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.5 * losses[0], losses
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 1e-4, f"{weight.name} has not been trained"
    data = [normal(2, 6, 6, 1).astype("float32"), normal(2, 12, 12, 2).astype("float32")]
    expected = model(data)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(data), expected, atol=1e-6)


@pytest.mark.parametrize("guided", [False, True])
def test_xla_gives_the_same_outputs_and_gradients(guided, native_xla):
    layer = DDFUp2D(dtype="float64")
    inputs = [tf.constant(normal(2, 4, 5, 6)), tf.constant(normal(2, 8, 10, 2))][: 1 + guided]

    def gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = call_layer(layer, list(inputs))
            loss = tf.reduce_sum(tf.sin(output))
        return output, tape.gradient(loss, [*inputs, *layer.trainable_weights])

    expected = gradients(*inputs)
    actual = tf.function(gradients, jit_compile=True)(*inputs)
    for one, other in zip(tf.nest.flatten(actual), tf.nest.flatten(expected)):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "mode, guide", [("eager", None), ("eager", (4, 5)), ("eager", (8, 10)), ("function", None)], ids=str
)
def test_empty_batch(mode, guide, implementation):
    if (mode, implementation) == ("function", "composite") and keras.__version__.startswith("2."):
        pytest.skip("in graphs of TensorFlow 2.15, the gradient of an empty convolution has a wrong shape")
    inputs = [tf.zeros((0, 4, 5, 6))] + ([] if guide is None else [tf.zeros((0, *guide, 3))])
    layer = DDFUp2D()

    def gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = call_layer(layer, list(inputs))
        return output, tape.gradient(output, [*inputs, *layer.trainable_weights])

    if mode == "function":
        layer.build([value.shape for value in inputs] if guide else inputs[0].shape)
        signature = [tf.TensorSpec((None, *value.shape[1:])) for value in inputs]
        gradients = tf.function(gradients, input_signature=signature)
    with keras_dynfilter.implementation(implementation):
        output, actual = gradients(*inputs)
    assert output.shape == (0, 8, 10, 6)
    assert [gradient.shape for gradient in actual] == [value.shape for value in [*inputs, *layer.trainable_weights]]
    assert not any(np.any(gradient) for gradient in actual)


IMAGE = (2, 4, 5, 6)
ERRORS = {
    "factor": (lambda: DDFUp2D(1), "Expected `scale_factor` to be at least 2.* scale_factor=1"),
    "factor type": (lambda: DDFUp2D(2.0), "Expected `scale_factor` to be a positive integer.*2.0"),
    "guide_size": (lambda: DDFUp2D(guide_size=2), "Expected `guide_size` to be one of 'auto', .* guide_size=2"),
    "even": (lambda: DDFUp2D(kernel_size=2), "Expected `kernel_size` to be odd"),
    "three": (lambda: DDFUp2D().build([IMAGE] * 3), r"a list \[inputs, guide\]. Received: 3 tensors"),
    "rank": (lambda: DDFUp2D().build((2, 4, 5)), r"Expected `inputs` to have rank 4.*\(2, 4, 5\)"),
    "guide rank": (lambda: DDFUp2D().build([IMAGE, (2, 4, 5)]), r"Expected `guide` to have rank 4.*\(2, 4, 5\)"),
    "heads": (lambda: DDFUp2D(heads=4).build(IMAGE), "Expected `heads` to divide the channels.* heads=4, channels=6"),
    "guide": (
        lambda: DDFUp2D().build([IMAGE, (2, 8, 5, 6)]),
        r"Expected `guide` to be 1 or 2 times as large as `inputs`\..*guide.shape=\(2, 8, 5, 6\)",
    ),
    "small guide": (
        lambda: DDFUp2D(guide_size="output").build([IMAGE, IMAGE]),
        "Expected `guide` to be 2 times as large as `inputs`",
    ),
    "unknown": (
        lambda: DDFUp2D().build([(None, None, None, 3)] * 2),
        "Expected `guide_size` to be 'input' or 'output' where sizes are unknown",
    ),
}


@pytest.mark.parametrize("call, message", ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_built_layers_keep_the_size_of_the_guide():
    layer = DDFUp2D()
    layer([np.ones((1, 4, 4, 2)), np.ones((1, 8, 8, 3))])
    with pytest.raises(ValueError, match="Expected `guide` to be 2 times as large as `inputs`"):
        layer([np.ones((1, 4, 4, 2)), np.ones((1, 4, 4, 3))])
