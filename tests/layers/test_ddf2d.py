# SPDX-License-Identifier: Apache-2.0
"""DDF2D: values against a NumPy implementation, parameter counts, arguments, initial values."""

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.layers import DDF2D, FilterNorm
from keras_dynfilter.ops import ddf2d
from tests.support import reference

pytestmark = pytest.mark.legacy
TOLERANCE = dict(rtol=1e-10, atol=1e-12)


def normal(*shape):
    return np.random.default_rng(9).standard_normal(shape)


def to_channels_first(value):
    """Transposes channels-last images to channels-first."""
    return np.moveaxis(np.asarray(value), 3, 1)


def filter_norm(values, axis):
    """Computes `FilterNorm` with the gain "relu" in NumPy; `axis` is the axis of taps."""
    deviation = values.std(axis=axis, ddof=1, keepdims=True) + 1e-10
    return (values - values.mean(axis=axis, keepdims=True)) / deviation * np.sqrt(2 / values.shape[axis])


def named_weights(layer):
    """Returns the weights of a `DDF2D` in a dict."""
    weights = {}
    generator = layer.generator
    if layer.branches != "channel":
        weights.update(spatial=generator.spatial_kernel.numpy(), spatial_bias=generator.spatial_bias.numpy())
    for branch in generator.channel_branches:
        for name, dense in (("squeeze", branch.squeeze), ("expand", branch.expand)):
            weights[name], weights[f"{name}_bias"] = (weight.numpy() for weight in (dense.kernel, dense.bias))
        if isinstance(branch.norm, FilterNorm) and branch.norm.scale_weight is not None:
            weights["scale"] = branch.norm.scale_weight.numpy()
    return weights


def truth(layer, images):
    """Computes the whole layer in NumPy, channels-last."""
    weights, taps = named_weights(layer), math.prod(layer.kernel_size)
    sampled = images[:, :: layer.strides[0], :: layer.strides[1]]
    values = sampled @ weights["spatial"] + weights["spatial_bias"]
    spatial = filter_norm(values.reshape(*values.shape[:3], layer.heads, taps), -1).reshape(values.shape)
    hidden = np.maximum(images.mean(axis=(1, 2)) @ weights["squeeze"] + weights["squeeze_bias"], 0)
    values = (hidden @ weights["expand"] + weights["expand_bias"]).reshape(len(images), taps, -1)
    channel = filter_norm(values, 1) / np.sqrt(2 / taps) * weights["scale"]
    channel = channel.reshape(len(images), *layer.kernel_size, -1)
    geometry = dict(kernel_size=layer.kernel_size, strides=layer.strides, dilation_rate=layer.dilation_rate)
    return reference.filter2d(images, spatial, channel, layer.combine, **geometry, padding="same", heads=layer.heads)


LAYERS = {
    "default": (dict(), (6, 7, 8)),
    "stride_2_even": (dict(strides=2), (6, 8, 8)),
    "stride_2_odd": (dict(strides=2), (7, 5, 8)),
    "strides_add": (dict(strides=(3, 2), combine="add", dilation_rate=(1, 2)), (8, 7, 12)),
    "heads": (dict(heads=3, kernel_size=5, squeeze_ratio=0.5), (6, 5, 6)),
    "row": (dict(kernel_size=(1, 7)), (3, 9, 4)),
    "one_channel": (dict(kernel_size=5, dilation_rate=2), (9, 8, 1)),
    "four_channels": (dict(heads=4, combine="add"), (4, 4, 4)),
    "one_pixel": (dict(strides=2), (1, 1, 10)),
}
every_layer = pytest.mark.parametrize("arguments, image", LAYERS.values(), ids=LAYERS)


@every_layer
def test_values(arguments, image, data_format, implementation):
    layer = DDF2D(**arguments, data_format=data_format, dtype="float64")
    images = normal(3, *image)
    with keras_dynfilter.implementation(implementation):
        output = layer(to_channels_first(images) if data_format == "channels_first" else images)
    expected = truth(layer, images)
    assert expected.std() > 1e-3
    expected = to_channels_first(expected) if data_format == "channels_first" else expected
    np.testing.assert_allclose(output, expected, **TOLERANCE)


@pytest.mark.parametrize("channels, parameters", [(64, 9_429), (128, 35_490), (256, 137_532), (512, 536_175)])
def test_parameter_counts(channels, parameters):
    layer = DDF2D()
    layer.build((None, None, None, channels))
    assert layer.count_params() == parameters


@pytest.mark.parametrize("channels, kernel, heads, ratio", [(1, 3, 1, 0.2), (4, 3, 2, 0.2), (10, 5, 5, 0.31)])
def test_parameter_formula(channels, kernel, heads, ratio):
    layer = DDF2D(kernel, heads=heads, squeeze_ratio=ratio)
    layer.build((None, None, None, channels))
    taps, squeezed = kernel**2, max(int(ratio * channels), 1)
    spatial = (channels + 1) * heads * taps
    channel = (channels + 1) * squeezed + (squeezed + 1) * channels * taps + channels * taps
    assert layer.count_params() == spatial + channel

    for branches, parameters in (("spatial", spatial), ("channel", channel)):
        layer = DDF2D(kernel, heads=heads, squeeze_ratio=ratio, branches=branches)
        layer.build((None, None, None, channels))
        assert layer.count_params() == parameters


def test_strided_spatial_filters_come_from_the_centre_of_the_window():
    images = normal(1, 6, 6, 4)
    layer = DDF2D(strides=2, branches="spatial", dtype="float64")
    before = layer(images).numpy()
    changed = images.copy()
    changed[:, 1::2] += 1  # all pixels except (2i, 2j), which the strided convolution samples
    changed[:, :, 1::2] += 1
    weights = named_weights(layer)
    spatial = filter_norm(images[:, ::2, ::2] @ weights["spatial"] + weights["spatial_bias"], -1)
    geometry = dict(kernel_size=(3, 3), strides=(2, 2), dilation_rate=(1, 1), padding="same", heads=1)
    expected = reference.filter2d(changed, spatial, None, "spatial", **geometry)
    assert np.abs(layer(changed).numpy() - before).max() > 0.1
    np.testing.assert_allclose(layer(changed), expected, **TOLERANCE)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_one_branch_alone(combine):
    """One branch equals both branches with a neutral filter: 1 if filters are multiplied, 0 if they are added."""
    images, neutral = normal(2, 5, 6, 4), 1.0 if combine == "mul" else 0.0
    spatial = DDF2D(branches="spatial", heads=2, combine=combine, dtype="float64")
    output = spatial(images)
    weights = named_weights(spatial)
    values = images @ weights["spatial"] + weights["spatial_bias"]
    filters = filter_norm(values.reshape(2, 5, 6, 2, 9), -1).reshape(values.shape)
    np.testing.assert_allclose(
        output, ddf2d(images, np.full((2, 3, 3, 4), neutral), filters, heads=2, combine=combine), **TOLERANCE
    )

    channel = DDF2D(branches="channel", combine=combine, dtype="float64")
    output = channel(images)
    (branch,) = channel.generator.channel_branches
    filters = branch(tf.reduce_mean(images, axis=(1, 2)))
    np.testing.assert_allclose(
        output, ddf2d(images, filters, np.full((2, 5, 6, 9), neutral), combine=combine), **TOLERANCE
    )


@pytest.mark.parametrize("norm", ["sigmoid", None])
def test_norms_without_statistics(norm):
    images = normal(2, 5, 6, 4)
    layer = DDF2D(kernel_size=1, spatial_norm=norm, channel_norm=norm, dtype="float64")
    function = (lambda values: 1 / (1 + np.exp(-values))) if norm else np.asarray
    output = layer(images)
    weights = named_weights(layer)
    assert len(layer.weights) == 6
    spatial = function(images @ weights["spatial"] + weights["spatial_bias"])
    hidden = np.maximum(images.mean(axis=(1, 2)) @ weights["squeeze"] + weights["squeeze_bias"], 0)
    channel = function(hidden @ weights["expand"] + weights["expand_bias"])
    np.testing.assert_allclose(output, images * spatial * channel[:, None, None], **TOLERANCE)


@pytest.mark.parametrize(
    "spatial_scale, spatial_center, channel_scale, channel_center",
    [("constant", None, "tap", None), ("filter", "tap", "constant", "filter"), ("tap", "filter", "filter", "tap")],
)
def test_filter_norms_as_objects(spatial_scale, spatial_center, channel_scale, channel_center):
    """The layer copies each norm, uses the copy in the channels-last layout, and gives the copy the layer's dtype."""
    images = normal(2, 5, 6, 4)
    options = dict(spatial_scale=spatial_scale, spatial_center=spatial_center)
    options |= dict(channel_scale=channel_scale, channel_center=channel_center)
    norms = dict(
        spatial_norm=FilterNorm("spatial", 3, scale=spatial_scale, center=spatial_center, data_format="channels_first"),
        channel_norm=FilterNorm("channel", scale=channel_scale, center=channel_center),
    )
    DDF2D(heads=2, **norms).build(images.shape)
    layer = DDF2D(heads=2, **norms, dtype="float64")
    layer.build(images.shape)
    (branch,) = layer.generator.channel_branches
    spatial, channel = layer.generator.spatial_norm, branch.norm
    assert not any(norm.built for norm in norms.values())
    per_head, per_channel = dict(filter=(2, 1), tap=(2, 9)), dict(filter=(1, 4), tap=(9, 4))
    learned = {}
    for name, weight, shapes in (
        ("spatial_scale", spatial.scale_weight, per_head),
        ("spatial_center", spatial.center_weight, per_head),
        ("channel_scale", channel.scale_weight, per_channel),
        ("channel_center", channel.center_weight, per_channel),
    ):
        assert (None if weight is None else tuple(weight.shape)) == shapes.get(options[name]), name
        neutral = 0.0 if "center" in name else np.sqrt(2 / 9)
        learned[name] = neutral if weight is None else normal(*weight.shape) + 2
        if weight is not None:
            weight.assign(learned[name])
    assert len(layer.weights) == 6 + sum(option in ("filter", "tap") for option in options.values())

    weights = named_weights(layer)
    values = images @ weights["spatial"] + weights["spatial_bias"]
    filters = filter_norm(values.reshape(2, 5, 6, 2, 9), -1) / np.sqrt(2 / 9)
    spatial_filters = (filters * learned["spatial_scale"] + learned["spatial_center"]).reshape(values.shape)
    hidden = np.maximum(images.mean(axis=(1, 2)) @ weights["squeeze"] + weights["squeeze_bias"], 0)
    values = (hidden @ weights["expand"] + weights["expand_bias"]).reshape(2, 9, 4)
    filters = filter_norm(values, 1) / np.sqrt(2 / 9)
    channel_filters = (filters * learned["channel_scale"] + learned["channel_center"]).reshape(2, 3, 3, 4)
    expected = ddf2d(images, channel_filters, spatial_filters, heads=2)
    np.testing.assert_allclose(layer(images), expected, **TOLERANCE)


IGNORED = {
    "spatial": (dict(branches="spatial"), dict(squeeze_ratio=0.9, combine="add", channel_norm="batch")),
    "channel": (dict(branches="channel"), dict(heads=2, combine="add", spatial_norm="batch")),
}


@pytest.mark.parametrize("used, ignored", IGNORED.values(), ids=IGNORED)
def test_arguments_of_a_missing_branch_have_no_effect(used, ignored):
    layers = DDF2D(**used), DDF2D(**used, **ignored)
    images = normal(2, 5, 6, 4).astype("float32")
    one, other = (layer(images) for layer in layers)
    assert np.abs(one - other).max() > 0.01
    layers[1].set_weights(layers[0].get_weights())
    np.testing.assert_array_equal(layers[1](images), one)


def test_bias_and_activation_follow_the_filtering(data_format):
    layer = DDF2D(3, activation="relu", use_bias=True, bias_regularizer="l2", data_format=data_format)
    images = normal(2, 6, 6, 6).astype("float32")
    before = layer(images)
    layer.bias.assign(np.arange(6.0) - 2)
    bias = np.asarray(layer.bias) if data_format == "channels_last" else np.asarray(layer.bias)[:, None, None]
    linear = DDF2D(3, data_format=data_format)
    linear.build(images.shape)
    linear.set_weights(layer.get_weights()[1:])
    np.testing.assert_allclose(before, np.maximum(linear(images), 0), atol=1e-6)
    np.testing.assert_allclose(layer(images), np.maximum(linear(images) + bias, 0), atol=1e-6)
    np.testing.assert_allclose(sum(layer.losses), 0.01 * np.sum(np.square(layer.bias)), rtol=1e-5)


def test_softmax_activation(data_format):
    """An activation with an axis works on the channels in both data formats, as in `RepositoryConv2D`."""
    layer = DDF2D(3, activation="softmax", data_format=data_format)
    axis = -1 if data_format == "channels_last" else 1
    np.testing.assert_allclose(np.sum(layer(normal(2, 6, 6, 6)), axis=axis), 1.0, rtol=1e-5)


def test_batch_norm_in_place_of_filter_norm():
    images = normal(8, 5, 6, 4)
    layer = DDF2D(spatial_norm="batch", channel_norm="batch", dtype="float64")
    output = layer(images, training=True)
    weights = named_weights(layer)
    assert len(layer.trainable_weights) == 6 + 4 and len(layer.non_trainable_weights) == 4

    def batch_norm(values, axes):
        return (values - values.mean(axis=axes)) / np.sqrt(values.var(axis=axes) + 1e-5)

    spatial = batch_norm(images @ weights["spatial"] + weights["spatial_bias"], (0, 1, 2))
    hidden = np.maximum(images.mean(axis=(1, 2)) @ weights["squeeze"] + weights["squeeze_bias"], 0)
    channel = batch_norm(hidden @ weights["expand"] + weights["expand_bias"], 0).reshape(8, 3, 3, 4)
    np.testing.assert_allclose(output, ddf2d(images, channel, spatial), rtol=1e-8, atol=1e-8)
    assert np.abs(layer(images, training=False) - output).max() > 0.01


def test_initial_values():
    layer = DDF2D()
    layer.build((None, None, None, 512))
    weights = named_weights(layer)
    for name, fan_in, fan_out in (("spatial", 512, 9), ("squeeze", 512, 102), ("expand", 102, 512 * 9)):
        deviation = weights[name].std()
        np.testing.assert_allclose(deviation, np.sqrt(2 / fan_out), rtol=0.05, err_msg=name)
        assert np.abs(weights[name]).max() > 2.5 * deviation, f"{name} is truncated"
        limit, bias = 1 / np.sqrt(fan_in), weights[f"{name}_bias"]
        assert np.abs(bias).max() <= limit and bias.std() > 0.3 * limit, name
    assert weights["scale"].shape == (9, 512)
    constant = DDF2D(generator_initializer="ones", generator_bias_initializer="zeros", squeeze_ratio=1)
    constant.build((None, None, None, 2))
    assert {name: np.unique(value).tolist() for name, value in named_weights(constant).items() if name != "scale"} == {
        name: [0.0 if "bias" in name else 1.0] for name in weights if name != "scale"
    }


def test_scale_at_initialisation():
    """For white noise, the outputs away from the borders have a mean square of `9 * (8/9 * 2/9)**2`."""
    outputs = [DDF2D()(normal(2, 32, 32, 256).astype("float32"))[:, 1:-1, 1:-1] for _ in range(3)]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(outputs))), 3 * 8 / 9 * 2 / 9, rtol=0.08)
