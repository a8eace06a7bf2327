# SPDX-License-Identifier: Apache-2.0
"""The DFN networks have the layers of the paper, and agree with a step-by-step reference implementation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import inspection, models
from tests.support import dfn_reference as reference

pytestmark = pytest.mark.legacy

COUNTS = {
    models.dfn_moving_mnist: 637_361,
    models.dfn_moving_mnist_baseline: 637_443,
    models.dfn_highway: 368_122,
    models.dfn_highway_baseline: 368_245,
    models.dfn_stereo: 464_494,
    models.dfn_stereo_baseline: 464_509,
    models.dfn_steerable: 18_897,
}
TIED_COUNTS = {models.dfn_highway: 237_082, models.dfn_stereo: 464_494 - 131_072 + 128}
NETWORKS = [network for network in COUNTS if network is not models.dfn_steerable]
TOLERANCE = dict(rtol=1e-4, atol=1e-5)


def small(network, image_shape=(12, 16, 1), **arguments):
    """Builds the network with few channels, and with weights whose filters differ clearly between positions."""
    sizes = {"kernel_size": (1, 5)} if "stereo" in network.__name__ else {"kernel_size": 5, "output_frames": 2}
    model = network(image_shape, **{"width": 0.125, **sizes, **arguments})
    rng = np.random.default_rng(7)
    for weight in model.trainable_weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) == 4 else 25
        weight.assign(1.4 * rng.standard_normal(tuple(weight.shape)) / np.sqrt(fan_in))
    return model


def frames_for(model):
    count = {1: 4, 2: 3}[model.buffer]
    return np.random.default_rng(0).random((2, count, 12, 16, 1)).astype("float32")


def inputs_for(model):
    if isinstance(model, models.FramePredictor):
        return frames_for(model)
    return np.random.default_rng(0).random((2, 12, 16, 1), np.float32)


@pytest.mark.parametrize("network, count", COUNTS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_number_of_parameters(network, count):
    assert network().count_params() == count


@pytest.mark.parametrize("network, count", TIED_COUNTS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_number_of_parameters_with_tied_biases(network, count):
    assert network((None, None, 1), untied_bias=False).count_params() == count


def _kernels(*layers):
    """Lists the shapes of the kernels and biases of layers `(size, in, out)` or `(size, in, out, bias shape)`."""
    return [
        shape
        for size, inputs, outputs, *bias in layers
        for shape in ((size, size, inputs, outputs), bias[0] if bias else (outputs,))
    ]


HIGHWAY = _kernels(
    (3, 2, 32, (64, 64, 32)), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 64), (3, 64, 64),
    (3, 64, 64), (3, 64, 32), (3, 32, 64), (1, 64, 128), (1, 128, 122),
)  # fmt: skip
STEREO = _kernels(
    (3, 1, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 128, (32, 32, 128)),
    (3, 128, 64), (3, 64, 64), (3, 64, 64), (3, 64, 64), (1, 64, 128), (1, 128, 14),
)  # fmt: skip
MOVING_MNIST = _kernels(
    (3, 1, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128), (3, 128, 128),
    (3, 128, 64), (3, 64, 64), (3, 64, 64), (3, 64, 64), (1, 64, 128), (1, 128, 81),
)  # fmt: skip
LAYERS = {
    models.dfn_moving_mnist: MOVING_MNIST,
    models.dfn_moving_mnist_baseline: MOVING_MNIST + _kernels((1, 81, 1)),
    models.dfn_highway: HIGHWAY,
    models.dfn_highway_baseline: HIGHWAY + _kernels((1, 122, 1)),
    models.dfn_stereo: STEREO,
    models.dfn_stereo_baseline: STEREO + _kernels((1, 14, 1)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_of_the_paper(network):
    model = network()
    assert [tuple(weight.shape) for weight in model.trainable_weights] == LAYERS[network]
    assert not model.non_trainable_weights
    for weight in model.trainable_weights:
        if len(weight.shape) == 4:  # LeCun's uniform distribution
            limit = np.float32(np.sqrt(3 / np.prod(weight.shape[:3])))
            assert 0.8 * limit < np.abs(weight.numpy()).max() <= limit, weight.shape
        else:
            assert not np.any(weight.numpy())


VIDEO = {
    models.dfn_moving_mnist: dict(depths=(4, 2, 2), state_channels=16, buffer=1),
    models.dfn_moving_mnist_baseline: dict(depths=(4, 2, 2), state_channels=16, buffer=1, baseline=True),
    models.dfn_highway: dict(depths=(3, 1, 2), state_channels=8, buffer=2, dynamic_bias=True),
    models.dfn_highway_baseline: dict(depths=(3, 1, 2), state_channels=8, buffer=2, baseline=True),
}


@pytest.mark.parametrize("network", VIDEO)
def test_recurrence_of_the_paper(network, implementation):
    """Predictions and gradients agree with the reference, which runs the whole network in every step."""
    model = small(network)
    frames = tf.constant(frames_for(model))
    target = np.random.default_rng(1).random((2, 3, 12, 16, 1)).astype("float32")
    with keras_dynfilter.implementation(implementation), tf.GradientTape() as tape:
        tape.watch(frames)
        predictions = model(frames, steps=3)
        loss = tf.reduce_mean((predictions - target) ** 2)
    gradients = tape.gradient(loss, [frames, *model.trainable_weights])

    weights = [tf.Variable(weight.numpy()) for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(frames)
        expected = reference.predict(frames, 3, weights, kernel_size=(5, 5), **VIDEO[network])
        loss = tf.reduce_mean((expected - target) ** 2)
    np.testing.assert_allclose(predictions, expected, **TOLERANCE)
    assert np.abs(predictions[:, 1:] - predictions[:, :-1]).max() > 0.05
    for gradient, expected in zip(gradients, tape.gradient(loss, [frames, *weights])):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_stereo_of_the_paper(implementation):
    model, baseline = small(models.dfn_stereo), small(models.dfn_stereo_baseline)
    left = inputs_for(model)
    values, _, _ = reference.generate(left, None, [w.numpy() for w in model.trainable_weights], (4, 2, 2))
    expected, filters = reference.filter_frame(left, values, (1, 5), dynamic_bias=True)
    with keras_dynfilter.implementation(implementation):
        np.testing.assert_allclose(model(left), expected, **TOLERANCE)
        np.testing.assert_allclose(inspection.generated_filters(model, left), filters, **TOLERANCE)

    values, _, rest = reference.generate(left, None, [w.numpy() for w in baseline.trainable_weights], (4, 2, 2))
    np.testing.assert_allclose(baseline(left), reference.convolution(values, rest, linear=True), **TOLERANCE)


@pytest.mark.parametrize("pixel, field", [(32, (-14, 14)), (33, (-15, 13))])
def test_receptive_field_of_one_step(pixel, field):
    """The values of a pixel depend on 29 x 29 pixels. This window is centred on the pixel if its position is even."""
    network = models.dfn_moving_mnist(width=0.125).network
    images = tf.constant(np.random.default_rng(0).random((1, 64, 64, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(network.decode(network.encode(images), images)[0, pixel, pixel])
    seen = tape.gradient(value, images)[0, ..., 0].numpy() != 0
    for axis in (0, 1):
        (positions,) = np.nonzero(seen.any(axis=1 - axis))
        assert (positions.min() - pixel, positions.max() - pixel) == field
        assert len(positions) == 29


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_filter_network_alone(size):
    """A recurrent network returns values and its state, and starts from a state of zeros."""
    channels = dict(encoder=(3, 4), state=5, low_decoder=(), high_decoder=(6,), hidden=7)
    network = models.FilterNetwork(9, **channels, recurrent=True)
    images = np.random.default_rng(0).random((2, *size, 2)).astype("float32")
    half = (2, 4, 3, 5)
    values, state = network(images)
    assert values.shape == (2, *size, 9) and state.shape == half
    assert tuple(map(tuple, network.compute_output_shape(images.shape))) == ((2, *size, 9), half)
    again, _ = network(images, np.zeros(half, np.float32))
    np.testing.assert_allclose(again, values, **TOLERANCE)
    later, new = network(images, state)
    assert np.abs(later - values).max() > 1e-3 and np.abs(new - state).max() > 1e-3

    copy = models.FilterNetwork.from_config(network.get_config())
    assert copy.get_config() == network.get_config()
    feed_forward = models.FilterNetwork(9, **channels)
    assert feed_forward(images).shape == tuple(feed_forward.compute_output_shape(images.shape)) == (2, *size, 9)
    assert copy(images)[0].shape == (2, *size, 9) and copy.count_params() > feed_forward.count_params()


@pytest.mark.parametrize("network", [models.dfn_moving_mnist, models.dfn_highway])
def test_predictions_are_fed_back(network):
    """The second prediction is the first one, filtered with filters that depend on the first one as well."""
    model = small(network)
    frames = tf.constant(frames_for(model))
    longer = np.concatenate([frames, model(frames, steps=1)], axis=1)
    np.testing.assert_allclose(model(frames, steps=2)[:, 1:], model(longer, steps=1), **TOLERANCE)

    with tf.GradientTape() as tape:
        outputs = model(frames, steps=2, return_filters=True)
        second = tf.reduce_sum(outputs["frames"][:, 1])
    filters, bias = outputs["filters"][:, 1], outputs.get("bias", tf.zeros((2, 2, 12, 16, 1)))[:, 1]
    expected = reference.local_filter(outputs["frames"][:, 0] + bias, filters, (5, 5))
    np.testing.assert_allclose(outputs["frames"][:, 1], expected, **TOLERANCE)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(second, model.trainable_weights))


@pytest.mark.parametrize("network", VIDEO)
def test_any_number_of_steps(network):
    model = small(network)
    frames = frames_for(model)
    assert model(frames).shape == (2, model.output_frames, 12, 16, 1)
    seven, twenty = model(frames, steps=7), model(frames, steps=20)
    assert twenty.shape == (2, 20, 12, 16, 1)
    np.testing.assert_allclose(seven, twenty[:, :7], **TOLERANCE)


@pytest.mark.parametrize("network", VIDEO)
def test_any_number_of_given_frames(network):
    model = small(network)
    frames = np.random.default_rng(0).random((1, 6, 12, 16, 1)).astype("float32")
    weights = [weight.numpy() for weight in model.trainable_weights]
    for count in range(model.buffer, 7):
        expected = reference.predict(frames[:, :count], 1, weights, kernel_size=(5, 5), **VIDEO[network])
        np.testing.assert_allclose(model(frames[:, :count], steps=1), expected, **TOLERANCE)


@pytest.mark.parametrize("network", [models.dfn_moving_mnist, models.dfn_highway, models.dfn_stereo])
def test_generated_filters(network):
    model = small(network)
    inputs = inputs_for(model)
    filters = inspection.generated_filters(model, inputs)
    steps = () if network is models.dfn_stereo else (model.output_frames,)
    assert filters.shape == (2, *steps, 12, 16, 5 if network is models.dfn_stereo else 25)
    assert isinstance(filters, np.ndarray) and filters.min() >= 0
    np.testing.assert_allclose(filters.sum(axis=-1), 1, rtol=1e-5)
    assert filters.max() > 2 / filters.shape[-1]
    if steps:
        assert inspection.generated_filters(model, inputs, steps=2).shape == (2, 2, 12, 16, 25)
        outputs = model(inputs, return_filters=True)
        np.testing.assert_array_equal(outputs["filters"], filters)
        np.testing.assert_array_equal(outputs["frames"], model(inputs))
        assert set(outputs) == {"frames", "filters"} | ({"bias"} if network is models.dfn_highway else set())


def set_filters_to_one_tap(model, tap, bias=0.0):
    """Sets the last convolution so that all filters have their whole weight on one tap."""
    kernel, kernel_bias = model.trainable_weights[-2:]
    kernel.assign(tf.zeros_like(kernel))
    values = np.zeros(kernel_bias.shape, np.float32)
    values[tap] = 100
    if len(values) % 2 == 0:  # an odd number of taps, and the dynamic bias
        values[-1] = bias
    kernel_bias.assign(values)


def shifted(images, rows, columns):
    """Returns `images[:, i + rows, j + columns]` at each position (i, j), and zeros outside the images."""
    _, height, width, _ = images.shape
    result = np.zeros_like(images)
    for i in range(height):
        for j in range(width):
            if 0 <= i + rows < height and 0 <= j + columns < width:
                result[:, i, j] = images[:, i + rows, j + columns]
    return result


@pytest.mark.parametrize("network, bias", [(models.dfn_moving_mnist, 0.0), (models.dfn_highway, 0.25)])
def test_one_hot_filters_shift_the_last_frame(network, bias):
    model = small(network)
    frames = frames_for(model)
    set_filters_to_one_tap(model, 1 * 5 + 4, bias)  # one row up, two columns to the right
    expected = frames[:, -1]
    for prediction in np.moveaxis(model(frames, steps=3).numpy(), 1, 0):
        expected = shifted(expected + bias, -1, 2)  # the bias is added before zeros are padded
        np.testing.assert_allclose(prediction, expected, rtol=1e-6, atol=1e-6)


def test_one_hot_filters_shift_the_left_view():
    model = small(models.dfn_stereo)
    left = inputs_for(model)
    set_filters_to_one_tap(model, 4, 0.25)
    np.testing.assert_allclose(model(left), shifted(left + 0.25, 0, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("network", [models.dfn_moving_mnist, models.dfn_highway, models.dfn_stereo])
@pytest.mark.parametrize("size", [(12, 10), (1, 5)])
def test_networks_with_tied_biases_take_images_of_any_size(network, size):
    tied = {} if network is models.dfn_moving_mnist else {"untied_bias": False}
    model = small(network, (None, None, 1), **tied)
    inputs = np.random.default_rng(0).random((2, 3, *size, 1)).astype("float32")
    if network is models.dfn_stereo:
        inputs = inputs[:, 0]
    fixed = small(network, (*size, 1), **tied)
    signature = tf.TensorSpec([None, *inputs.shape[1:-3], None, None, 1])
    function = tf.function(lambda inputs: model(inputs), input_signature=[signature])
    np.testing.assert_allclose(model(inputs), fixed(inputs), **TOLERANCE)
    np.testing.assert_allclose(function(inputs), fixed(inputs), **TOLERANCE)


@pytest.mark.parametrize("network", [models.dfn_highway, models.dfn_stereo])
def test_untied_biases_need_a_known_size(network):
    with pytest.raises(ValueError, match=r"Expected `inputs` to have known sizes.*bias of its own"):
        network((None, None, 1))


@pytest.mark.parametrize("network", [models.dfn_highway, models.dfn_stereo])
def test_an_untied_bias_that_is_the_same_everywhere_equals_a_tied_one(network):
    untied, tied = small(network), small(network, untied_bias=False)
    shared = [weight.numpy() for weight in tied.trainable_weights]
    biases = [index for index, weight in enumerate(untied.trainable_weights) if len(weight.shape) == 3]
    assert biases == [1 if network is models.dfn_highway else 9]
    untied.set_weights([np.broadcast_to(value, w.shape) for value, w in zip(shared, untied.trainable_weights)])
    inputs = inputs_for(tied)
    np.testing.assert_allclose(untied(inputs), tied(inputs), **TOLERANCE)


ERRORS = {
    "even window": (lambda: models.dfn_moving_mnist(kernel_size=4), "Expected `kernel_size`.*4"),
    "width": (lambda: models.dfn_highway(width=0), "Expected `width` to be a positive number. .*width=0"),
    "width, bool": (lambda: models.dfn_stereo(width=True), "Expected `width` to be a positive number. .*True"),
    "colour": (lambda: models.dfn_highway((64, 64, 3)), r"Expected `image_shape`.*\(64, 64, 3\)"),
    "colour, stereo": (lambda: models.dfn_stereo((64, 64)), r"Expected `image_shape`.*\(64, 64\)"),
    "buffer": (
        lambda: models.dfn_highway(input_frames=1),
        r"Expected `input_frames` to be at least 2\. Received: input_frames=1",
    ),
    "no frames out": (lambda: models.dfn_moving_mnist(output_frames=0), "Expected `output_frames`.*0"),
    "encoder": (lambda: models.FilterNetwork(4, encoder=(3,)), r"Expected `encoder` to have two layers.*\(3,\)"),
    "bias": (lambda: models.FilterNetwork(4, untied_bias=True), "Expected `untied_bias` to be None, .*True"),
}


@pytest.mark.parametrize("make, message", ERRORS.values(), ids=ERRORS)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_errors_of_calls():
    model, baseline = small(models.dfn_highway), small(models.dfn_highway_baseline)
    frames = frames_for(model)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=r"Expected `steps`.*steps="):
            model(frames, steps=steps)
    with pytest.raises(ValueError, match=r"Expected `frames` to have shape .*frames\.shape=\(2, 1, 12, 16, 1\)"):
        model(frames[:, :1])
    with pytest.raises(ValueError, match=r"\(batch, 2 or more, height, width, 1\).*frames\.shape=\(2, 3, 12, 16, 3\)"):
        model(np.repeat(frames[:, :1], 3, axis=1).repeat(3, axis=-1))
    with pytest.raises(ValueError, match=r"Expected `inputs` to have shape \(batch, 12, 16, .*bias of its own"):
        model(np.zeros((2, 3, 8, 16, 1), np.float32))
    with pytest.raises(ValueError, match=r"generates filters.*dfn_highway_baseline"):
        baseline(frames, return_filters=True)
    with pytest.raises(ValueError, match=r"no further arguments for dfn_stereo.* Received: steps"):
        inspection.generated_filters(small(models.dfn_stereo), frames[:, 0], steps=3)
    for network, message in (
        (baseline, r"generates filters.*dfn_highway_baseline"),
        (small(models.dfn_stereo_baseline), r"Expected `model` to generate filters\. Received: dfn_stereo_baseline"),
        (keras.Sequential(), r"Expected `model` to be a built keras\.Model"),
    ):
        with pytest.raises(ValueError, match=message):
            inspection.generated_filters(network, frames)
