# SPDX-License-Identifier: Apache-2.0
"""Builds small models for the export tests."""

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter import layers, ops


@keras.saving.register_keras_serializable("keras_dynfilter_tests")
class Apply(keras.layers.Layer):
    """Applies one op of the package, with options, to its inputs."""

    def __init__(self, op, options=None, **kwargs):
        super().__init__(**kwargs)
        self.op, self.options = op, dict(options or {})

    def call(self, inputs):
        return getattr(ops, self.op)(*inputs, **self.options)

    def get_config(self):
        return {**super().get_config(), "op": self.op, "options": self.options}


@keras.saving.register_keras_serializable("keras_dynfilter_tests")
class SplitChannels(keras.layers.Layer):
    """Reshapes the channels of `[batch, height, width, channels]` to `shape`."""

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape_ = tuple(shape)

    def call(self, inputs):
        return tf.reshape(inputs, tf.concat([tf.shape(inputs)[:3], self.shape_], axis=0))

    def get_config(self):
        return {**super().get_config(), "shape": self.shape_}


def spatial(image, channels, strides=1):
    """Returns filters for every position. A 1x1 convolution has the same output size as an op with the same strides."""
    return keras.layers.Conv2D(channels, 1, strides=strides)(image)


def per_sample(image, *shape):
    """Returns one filter of this shape for every sample."""
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    return keras.layers.Reshape(shape)(keras.layers.Dense(int(np.prod(shape)))(pooled))


def local_filter(kernel_size=3, strides=1, heads=1, size=(None, None), **options):
    image = keras.Input((*size, 4), name="image")
    filters = spatial(image, heads * kernel_size**2, strides)
    if options.get("padding") == "valid":
        filters = keras.layers.Cropping2D((kernel_size // 2) * options.get("dilation_rate", 1))(filters)
    options = {"kernel_size": kernel_size, "strides": strides, "heads": heads, **options}
    return keras.Model(image, Apply("local_filter2d", options, name="filtered")([image, filters]))


def infinite_filter_value():
    """Returns a model and a sample in which a tap outside the image has an infinite filter value."""
    image, filters = keras.Input((None, None, 1), name="image"), keras.Input((None, None, 9), name="filters")
    model = keras.Model([image, filters], Apply("local_filter2d", {"kernel_size": 3})([image, filters]))
    sample = {"image": np.ones((1, 4, 5, 1), "float32"), "filters": np.ones((1, 4, 5, 9), "float32")}
    sample["filters"][0, 0, 0, 0] = np.inf
    return model, sample


def local_filter_channels_first():
    image = keras.Input((4, None, None), name="image")
    filters = keras.Input((9, None, None), name="filters")
    options = {"kernel_size": 3, "data_format": "channels_first"}
    return keras.Model([image, filters], Apply("local_filter2d", options, name="filtered")([image, filters]))


def depthwise():
    image = keras.Input((None, None, 4), name="image")
    options = {"strides": (2, 1), "dilation_rate": 2}
    layer = Apply("dynamic_depthwise_conv2d", options, name="filtered")
    return keras.Model(image, layer([image, per_sample(image, 5, 3, 4)]))


def ddf(combine="mul", heads=1):
    image = keras.Input((None, None, 4), name="image")
    filters = [per_sample(image, 3, 3, 4), spatial(image, 9 * heads)]
    layer = Apply("ddf2d", {"combine": combine, "heads": heads}, name="filtered")
    return keras.Model(image, layer([image, *filters]))


def ddf_module():
    image = keras.Input((None, None, 4), name="image")
    return keras.Model(image, layers.DDF2D(3, name="filtered")(image))


def two_by_name():
    """Returns a model with dicts as inputs and outputs."""
    inputs = {"image": keras.Input((None, None, 2), name="image"), "guide": keras.Input((None, None, 3), name="guide")}
    filters = spatial(inputs["guide"], 9)
    filtered = Apply("local_filter2d", {"kernel_size": 3})([inputs["image"], filters])
    return keras.Model(inputs, {"filtered": filtered, "mean": keras.layers.GlobalAveragePooling2D()(filtered)})


@keras.saving.register_keras_serializable("keras_dynfilter_tests")
class Subclassed(keras.Model):
    """A subclassed model with two arguments and outputs without names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.filters = keras.layers.Conv2D(9, 3, padding="same")
        self.apply = Apply("local_filter2d", {"kernel_size": 3})

    def call(self, image, guide, training=None):
        filtered = self.apply([image, self.filters(guide)])
        return filtered, filtered * 2.0


def subclassed():
    model = Subclassed()
    model(tf.zeros((1, 8, 8, 2)), tf.zeros((1, 8, 8, 3)))
    return model


def run(model, *inputs):
    """Calls the model; returns its outputs as a list of arrays."""
    return [np.asarray(value) for value in tf.nest.flatten(model(*inputs, training=False))]


def every_op():
    """Returns a model with one output for each op, and for each layer that uses several ops."""
    image = keras.Input((None, None, 4), name="image")

    def apply(name, op, filters, **options):
        return Apply(op, options, name=name)([image, *filters])

    factors = [per_sample(image, 3, 3, 4), spatial(image, 18)]
    outputs = {
        "local": apply("local", "local_filter2d", [spatial(image, 9)], kernel_size=3),
        "softmax": apply(
            "softmax",
            "local_filter2d",
            [spatial(image, 50, 2)],
            kernel_size=5,
            strides=2,
            heads=2,
            normalization="softmax",
        ),
        "dilated": apply("dilated", "local_filter2d", [spatial(image, 9)], kernel_size=3, dilation_rate=3),
        "depthwise": apply(
            "depthwise", "dynamic_depthwise_conv2d", [per_sample(image, 5, 3, 4)], strides=(2, 1), dilation_rate=2
        ),
        "ddf_mul": apply("ddf_mul", "ddf2d", factors, heads=2),
        "ddf_add": apply("ddf_add", "ddf2d", factors, heads=2, combine="add"),
        "ddf_strided": apply("ddf_strided", "ddf2d", [factors[0], spatial(image, 9, 2)], strides=2),
        "ddf_dilated": apply("ddf_dilated", "ddf2d", [factors[0], spatial(image, 9)], dilation_rate=2),
        "conv": apply("conv", "dynamic_conv2d", [per_sample(image, 3, 3, 4, 2)], strides=2),
        "conv_to_one": apply("conv_to_one", "dynamic_conv2d", [per_sample(image, 3, 3, 4, 1)], padding="valid"),
        "local_conv": apply("local_conv", "local_conv2d", [SplitChannels((3, 3, 4, 2))(spatial(image, 72))]),
        "one_channel": Apply("local_filter2d", {"kernel_size": 7, "normalization": "softmax"}, name="one_channel")(
            [keras.layers.Conv2D(1, 1)(image), spatial(image, 49)]
        ),
        "ddf_layer": layers.DDF2D(3, squeeze_ratio=2.0, name="ddf_layer")(image),
        "ddf_up": layers.DDFUp2D(2, squeeze_ratio=2.0, name="ddf_up")(image),
        "ddf_up_guided": layers.DDFUp2D(2, squeeze_ratio=2.0, guide_size="output", name="ddf_up_guided")(
            [image, keras.layers.UpSampling2D(2)(image)]
        ),
        "ddf_biased": layers.DDF2D(3, 2, squeeze_ratio=2.0, use_bias=True, activation="relu", name="ddf_biased")(image),
        "repository": layers.RepositoryConv2D(3, 3, base_filters=2, dynamic_bias="after", name="repository")(
            [image, keras.layers.GlobalAveragePooling2D()(image)]
        ),
    }
    return keras.Model(image, outputs)
