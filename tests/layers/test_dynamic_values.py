# SPDX-License-Identifier: Apache-2.0
"""Values of the layers with given or generated filters, against the reference implementation and formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import DynamicConv2D, DynamicDepthwiseConv2D, DynamicLocalFilter2D
from tests.support import reference

pytestmark = pytest.mark.legacy

TOLERANCE = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture
def normal():
    generator = np.random.default_rng(7)
    return lambda *shape: generator.standard_normal(shape).astype("float32")


def to_channels_first(value):
    """Transposes channels-last images to channels-first."""
    return np.transpose(value, [0, 3, 1, 2])


def softmax(logits, axes):
    powers = np.exp(logits - logits.max(axis=axes, keepdims=True))
    return powers / powers.sum(axis=axes, keepdims=True)


def local(image, filters, kernel_size, heads=1, strides=(1, 1), dilation_rate=(1, 1), padding="same"):
    geometry = dict(kernel_size=kernel_size, strides=strides, dilation_rate=dilation_rate, padding=padding)
    return reference.filter2d(image, filters, None, "spatial", **geometry, heads=heads)


WINDOWS = (
    dict(),
    dict(strides=(2, 3)),
    dict(dilation_rate=(2, 1)),
    dict(padding="valid", strides=2),
)


def full_window(window):
    pairs = {name: (value, value) if isinstance(value, int) else value for name, value in window.items()}
    return {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "same", **pairs}


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("heads, maps", [(1, 1), (2, 1), (2, 3)])
def test_local_filter(normal, window, heads, maps, data_format):
    layer = DynamicLocalFilter2D((3, 5), data_format=data_format, heads=heads, depth_multiplier=maps, **window)
    image = normal(2, 9, 11, 4)
    size = reference.output_shape(image.shape, dict(kernel_size=(3, 5), **full_window(window)))
    filters = normal(2, *size, maps, heads * 15)
    expected = [local(image, filters[:, :, :, m], (3, 5), heads, **full_window(window)) for m in range(maps)]

    flat = filters.reshape(2, *size, -1)
    if data_format == "channels_first":
        actual = np.transpose(layer([to_channels_first(image), to_channels_first(flat)]), [0, 2, 3, 1])
    else:
        actual = layer([image, flat])
    assert layer.count_filter_values() == flat.shape[-1]
    np.testing.assert_allclose(actual, np.concatenate(expected, axis=-1), **TOLERANCE)


@pytest.mark.parametrize("channels", [-1, 0, 2.5, True, None, "a"], ids=repr)
@pytest.mark.parametrize("layer", [DynamicConv2D(2, 3), DynamicDepthwiseConv2D(3)], ids=["conv", "depthwise"])
def test_count_filter_values_checks_the_channels(layer, channels):
    with pytest.raises(ValueError, match=r"Expected `channels` to be a positive integer\. Received: channels="):
        layer.count_filter_values(channels)


@pytest.mark.parametrize("flat", [False, True], ids=["bank", "flat"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_dynamic_conv(normal, window, flat, data_format):
    layer = DynamicConv2D(2, (3, 4), data_format=data_format, **window)
    image, filters = normal(3, 8, 9, 3), normal(3, 3, 4, 3, 2)
    expected = reference.dynamic_conv2d(image, filters, **full_window(window))
    bank = filters.reshape(3, -1) if flat else filters
    first = data_format == "channels_first"
    actual = layer([to_channels_first(image) if first else image, bank])
    assert layer.count_filter_values(3) == filters[0].size
    np.testing.assert_allclose(actual, to_channels_first(expected) if first else expected, **TOLERANCE)


@pytest.mark.parametrize("flat", [False, True], ids=["bank", "flat"])
def test_dynamic_depthwise_conv(normal, flat, data_format):
    layer = DynamicDepthwiseConv2D((3, 5), strides=2, data_format=data_format)
    image, filters = normal(3, 8, 9, 4), normal(3, 3, 5, 4)
    geometry = dict(kernel_size=(3, 5), strides=(2, 2), dilation_rate=(1, 1), padding="same", heads=1)
    expected = reference.filter2d(image, None, filters, "channel", **geometry)
    first = data_format == "channels_first"
    actual = layer([to_channels_first(image) if first else image, filters.reshape(3, -1) if flat else filters])
    assert layer.count_filter_values(4) == filters[0].size
    np.testing.assert_allclose(actual, to_channels_first(expected) if first else expected, **TOLERANCE)


def test_tiled_local_filters_and_dynamic_conv_equal_a_convolution_per_sample(normal):
    image, filters = normal(3, 8, 9, 1), normal(3, 5, 3, 1, 1)
    tiled = np.broadcast_to(filters.reshape(3, 1, 1, 15), (3, 8, 9, 15))
    by_sample = [tf.nn.conv2d(image[n : n + 1], filters[n], strides=1, padding="SAME") for n in range(3)]
    by_sample = np.concatenate(by_sample)
    np.testing.assert_allclose(DynamicConv2D(1, (5, 3))([image, filters]), by_sample, **TOLERANCE)
    np.testing.assert_allclose(DynamicLocalFilter2D((5, 3))([image, tiled]), by_sample, **TOLERANCE)
    np.testing.assert_allclose(DynamicDepthwiseConv2D((5, 3))([image, filters[..., 0]]), by_sample, **TOLERANCE)


def test_one_hot_filter_is_a_shift(normal):
    image = normal(2, 5, 6, 3)
    right_neighbour = np.zeros((2, 5, 6, 9), "float32")
    right_neighbour[..., 1 * 3 + 2] = 1
    expected = np.zeros_like(image)
    expected[:, :, :-1] = image[:, :, 1:]
    np.testing.assert_array_equal(DynamicLocalFilter2D(3)([image, right_neighbour]), expected)
    per_channel = np.zeros((2, 3, 3, 3), "float32")
    per_channel[:, 1, 2] = 1
    np.testing.assert_array_equal(DynamicDepthwiseConv2D(3)([image, per_channel]), expected)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(
    "cls, options",
    [
        (DynamicLocalFilter2D, dict(heads=2, depth_multiplier=2)),
        (DynamicConv2D, dict(filters=3)),
        (DynamicDepthwiseConv2D, dict()),
    ],
)
def test_softmax_weights_sum_to_one(normal, cls, options, separable):
    layer = cls(kernel_size=3, normalization="softmax", separable=separable, **options)
    ones = np.ones((2, 7, 8, 4), "float32")
    shape = (2, 7, 8) if cls is DynamicLocalFilter2D else (2,)
    values = layer.count_filter_values(*([] if cls is DynamicLocalFilter2D else [4]))
    output = layer([ones, 3 * normal(*shape, values)])
    np.testing.assert_allclose(output[:, 1:-1, 1:-1], np.ones_like(output[:, 1:-1, 1:-1]), rtol=1e-5)


def test_softmax_of_local_filters_is_per_head(normal):
    image, logits = normal(2, 5, 6, 4), normal(2, 5, 6, 2, 9)
    layer = DynamicLocalFilter2D(3, heads=2, normalization="softmax")
    expected = local(image, softmax(logits, -1).reshape(2, 5, 6, 18), (3, 3), heads=2)
    np.testing.assert_allclose(layer([image, logits.reshape(2, 5, 6, 18)]), expected, **TOLERANCE)


def test_softmax_of_dynamic_conv_is_over_taps_and_channels_of_an_output_channel(normal):
    image, logits = normal(2, 5, 6, 3), normal(2, 3, 3, 3, 2)
    layer = DynamicConv2D(2, 3, normalization="softmax")
    expected = reference.dynamic_conv2d(
        image, softmax(logits, (1, 2, 3)), strides=(1, 1), dilation_rate=(1, 1), padding="same"
    )
    np.testing.assert_allclose(layer([image, logits]), expected, **TOLERANCE)


@pytest.mark.parametrize("normalization", [None, "softmax"])
@pytest.mark.parametrize("heads, maps", [(1, 1), (2, 2)])
def test_separable_local_filter_is_two_passes(normal, heads, maps, normalization, data_format):
    layer = DynamicLocalFilter2D(
        (3, 5), data_format=data_format, heads=heads, depth_multiplier=maps, normalization=normalization, separable=True
    )
    image, filters = normal(2, 6, 7, 4), normal(2, 6, 7, maps, heads, 8)
    vertical, horizontal = filters[..., :3], filters[..., 3:]
    if normalization:
        vertical, horizontal = softmax(vertical, -1), softmax(horizontal, -1)
    expected = []
    for m in range(maps):
        once = local(image, vertical[:, :, :, m].reshape(2, 6, 7, -1), (3, 1), heads)
        expected.append(local(once, horizontal[:, :, :, m].reshape(2, 6, 7, -1), (1, 5), heads))
    expected = np.concatenate(expected, axis=-1)

    flat = filters.reshape(2, 6, 7, -1)
    assert layer.count_filter_values() == flat.shape[-1]
    if data_format == "channels_first":
        image, flat, expected = to_channels_first(image), to_channels_first(flat), to_channels_first(expected)
    np.testing.assert_allclose(layer([image, flat]), expected, **TOLERANCE)


def test_separable_local_filter_is_not_the_outer_product(normal):
    image, filters = normal(1, 6, 7, 1), normal(1, 6, 7, 6)
    outer = (filters[..., :3, None] * filters[..., None, 3:]).reshape(1, 6, 7, 9)
    two_passes = DynamicLocalFilter2D(3, separable=True)([image, filters])
    assert np.abs(two_passes - local(image, outer, (3, 3))).max() > 0.1


@pytest.mark.parametrize("flat", [False, True], ids=["bank", "flat"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("normalization", [None, "softmax"])
def test_separable_dynamic_conv_is_two_passes(normal, window, normalization, flat):
    image, filters = normal(2, 9, 11, 3), normal(2, 8, 3, 2)
    vertical, horizontal = filters[:, :3, None], filters[:, None, 3:]
    if normalization:
        vertical, horizontal = softmax(vertical, (1, 2, 3)), softmax(horizontal, 2)
    rows, columns = ({**full_window(window)} for _ in range(2))
    rows["strides"], columns["strides"] = (rows["strides"][0], 1), (1, rows["strides"][1])
    expected = 0
    for c in range(3):
        once = reference.dynamic_conv2d(image[..., c : c + 1], vertical[:, :, :, c : c + 1], **rows)
        for m in range(2):
            twice = reference.dynamic_conv2d(once[..., m : m + 1], horizontal[:, :, :, c : c + 1, m : m + 1], **columns)
            expected = expected + twice * np.eye(2)[m]

    layer = DynamicConv2D(2, (3, 5), normalization=normalization, separable=True, **window)
    assert layer.count_filter_values(3) == filters[0].size
    actual = layer([image, filters.reshape(2, -1) if flat else filters])
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("normalization", [None, "softmax"])
def test_separable_depthwise_conv_is_two_passes(normal, normalization):
    image, filters = normal(2, 9, 8, 3), normal(2, 8, 3)
    vertical, horizontal = filters[:, :3, None], filters[:, None, 3:]
    if normalization:
        vertical, horizontal = softmax(vertical, 1), softmax(horizontal, 2)
    geometry = dict(dilation_rate=(1, 1), padding="same", heads=1)
    once = reference.filter2d(image, None, vertical, "channel", kernel_size=(3, 1), strides=(2, 1), **geometry)
    expected = reference.filter2d(once, None, horizontal, "channel", kernel_size=(1, 5), strides=(1, 3), **geometry)
    layer = DynamicDepthwiseConv2D((3, 5), strides=(2, 3), normalization=normalization, separable=True)
    assert layer.count_filter_values(3) == filters[0].size
    np.testing.assert_allclose(layer([image, filters]), expected, **TOLERANCE)


@pytest.mark.parametrize("separable", [False, True])
def test_local_bias_before_is_padded_with_zeros(normal, separable, data_format):
    options = dict(data_format=data_format, normalization="softmax", separable=separable)
    layer = DynamicLocalFilter2D(3, dynamic_bias="before", **options)
    image, filters, bias = normal(2, 5, 6, 2), normal(2, 5, 6, 6 if separable else 9), normal(2, 5, 6, 1)
    layer_inputs = [image, np.concatenate([filters, bias], axis=-1)]
    expected = [image + bias, filters]
    if data_format == "channels_first":
        layer_inputs, expected = map(to_channels_first, layer_inputs), map(to_channels_first, expected)
    output = layer(list(layer_inputs))
    np.testing.assert_allclose(output, DynamicLocalFilter2D(3, **options)(list(expected)), **TOLERANCE)
    assert layer.count_filter_values() == filters.shape[-1] + 1

    taps_and_bias = np.concatenate([np.ones((1, 3, 3, 9)), np.full((1, 3, 3, 1), 5.0)], axis=-1)
    box = DynamicLocalFilter2D(3, data_format="channels_last", dynamic_bias="before")
    corner = box([np.zeros((1, 3, 3, 1)), taps_and_bias])[0, 0, 0, 0]
    assert float(corner) == 4 * 5.0  # the five taps outside the image multiply 0, not the bias


@pytest.mark.parametrize("strides", [1, 2])
def test_local_bias_after_is_added_to_the_results_of_all_filters(normal, strides, data_format):
    options = dict(strides=strides, data_format=data_format, depth_multiplier=2)
    size = (6 // strides, 8 // strides)
    image, filters, bias = normal(2, 6, 8, 2), normal(2, *size, 18), normal(2, *size, 1)
    expected = local(image, filters[..., :9], (3, 3), strides=(strides, strides))
    expected = np.concatenate([expected, local(image, filters[..., 9:], (3, 3), strides=(strides, strides))], axis=-1)
    layer_inputs = [image, np.concatenate([filters, bias], axis=-1)]
    expected = expected + bias
    if data_format == "channels_first":
        layer_inputs, expected = [to_channels_first(value) for value in layer_inputs], to_channels_first(expected)
    layer = DynamicLocalFilter2D(3, dynamic_bias="after", **options)
    assert layer.count_filter_values() == 19
    np.testing.assert_allclose(layer(layer_inputs), expected, **TOLERANCE)


@pytest.mark.parametrize("cls", [DynamicConv2D, DynamicDepthwiseConv2D])
@pytest.mark.parametrize("where", ["before", "after"])
def test_bias_per_sample(normal, cls, where, data_format):
    image, bank, bias = normal(2, 5, 6, 3), normal(2, 27), normal(2, 1)
    first = data_format == "channels_first"
    options = dict(kernel_size=3, data_format=data_format, **(dict(filters=1) if cls is DynamicConv2D else {}))
    plain = cls(**options)
    image = to_channels_first(image) if first else image
    bias_map = bias[:, :, None, None]
    if where == "before":
        expected = plain([image + bias_map, bank])
    else:
        expected = plain([image, bank]) + bias_map
    layer = cls(**options, dynamic_bias=where)
    assert layer.count_filter_values(3) == 28
    np.testing.assert_allclose(layer([image, np.concatenate([bank, bias], axis=1)]), expected, **TOLERANCE)


@pytest.mark.parametrize("cls", [DynamicLocalFilter2D, DynamicConv2D, DynamicDepthwiseConv2D])
def test_generator_sees_the_inputs_or_the_guide(normal, cls):
    image, guide = normal(2, 6, 7, 1), normal(2, 6, 7, 1)
    if cls is DynamicLocalFilter2D:
        generator = keras.layers.Conv2D(9, 3, padding="same")
    else:
        generator = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(9)])
    options = dict(kernel_size=3, **(dict(filters=1) if cls is DynamicConv2D else {}))
    layer = cls(**options, generator=generator)
    plain = cls(**options)
    np.testing.assert_allclose(layer(image), plain([image, generator(image)]), **TOLERANCE)
    np.testing.assert_allclose(layer([image, guide]), plain([image, generator(guide)]), **TOLERANCE)
    assert np.abs(layer(image) - layer([image, guide])).max() > 1e-3
    assert len(layer.trainable_weights) == 2
