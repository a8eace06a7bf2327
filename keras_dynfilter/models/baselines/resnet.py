# SPDX-License-Identifier: Apache-2.0
"""Residual networks whose spatial convolutions can be exchanged."""

import keras

from keras_dynfilter.layers.decoupled import fan_out_normal, uniform_by_fan_in
from keras_dynfilter.ops.checks import choice, integer, positive

BLOCKS = {"basic": 1, "bottleneck": 4}  # by how much the last convolution of a block widens it
STEMS = ("imagenet", "cifar")


def resnet(
    blocks=(3, 4, 6, 3),
    block="bottleneck",
    convolution=None,
    input_shape=(224, 224, 3),
    classes=1000,
    width=64,
    stem="imagenet",
    output_stride=None,
    include_top=True,
    pooling=None,
    classifier_activation="softmax",
    name="resnet",
):
    """A residual network, version 1.5: strides are in the 3x3 convolutions, not in the 1x1 ones before them.

        images -> stem -> stages of residual blocks -> mean -> Dense

    Args:
        blocks: Number of blocks in each stage. Every stage but the first halves the image, and has twice the channels
            of the one before.
        block: `"bottleneck"`: 1x1, 3x3 and 1x1 convolution, which widens to four times the channels; or `"basic"`:
            two 3x3 convolutions.
        convolution: What stands for the 3x3 convolutions of the blocks: `convolution(inputs, channels, strides,
            dilation_rate, name)`, which returns a tensor of as many channels; see `ddf_convolution`. None: `Conv2D`.
        input_shape: `(height, width, channels)`; sizes may be None.
        classes: Number of classes.
        width: Channels of the stem and, before widening, of the first stage.
        stem: `"imagenet"`: 7x7 convolution and max pooling, both of stride 2; or `"cifar"`: one 3x3 convolution of
            stride 1, for small images.
        output_stride: Size of the images over that of the last features. Stages that would pass it dilate their
            windows instead. None: all stages have their stride.
        include_top: Whether to end with the classifier.
        pooling: Without the top: None (features), `"avg"` or `"max"` (over the positions).
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model of `[batch, height, width, channels]` to `[batch, classes]`. Without the top, to features
        `[batch, out_height, out_width, features]`, or `[batch, features]` with `pooling`. The classifier computes in
        float32 under any dtype policy.

    Padding is the same on both sides, at the strided layers too, where TensorFlow's SAME pads one side. Convolutions
    start from He's normal values by the outputs, the classifier from uniform ones; the last normalisation of a block
    from a scale of 0, so that a block starts as its shortcut.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385) (He et al., 2015).
    """
    choice(block, "block", BLOCKS)
    choice(stem, "stem", STEMS)
    choice(pooling, "pooling", (None, "avg", "max"))
    _check(blocks, input_shape)
    width = positive(width, "width")
    stride, dilation = (4 if stem == "imagenet" else 1), 1
    if output_stride is not None and positive(output_stride, "output_stride") < stride:
        raise ValueError(
            f"Expected `output_stride` to be at least {stride}, that of the stem. Received: {output_stride=}"
        )
    build_block = bottleneck_block if block == "bottleneck" else basic_block

    images = keras.Input(input_shape, name="images")
    features = _stem(images, width, stem)
    for stage, count in enumerate(blocks):
        strides, previous = (1 if stage == 0 else 2), dilation
        if output_stride is not None and stride * strides > output_stride:
            strides, dilation = 1, dilation * strides
        stride *= strides
        for index in range(count):
            features = build_block(
                features,
                width * 2**stage,
                strides if index == 0 else 1,
                previous if index == 0 else dilation,
                convolution or plain_convolution,
                f"stage{stage + 1}_block{index + 1}",
            )
    if include_top or pooling == "avg":
        features = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="mean")(features)
    elif pooling == "max":
        features = keras.layers.GlobalMaxPooling2D(data_format="channels_last", name="max")(features)
    if include_top:
        features = keras.layers.Dense(
            positive(classes, "classes"),
            classifier_activation,
            kernel_initializer=uniform_by_fan_in(None, features.shape[-1]),
            bias_initializer=uniform_by_fan_in(None, features.shape[-1]),
            dtype="float32",
            name="predictions",
        )(features)
    return keras.Model(images, features, name=name)


def plain_convolution(inputs, channels, strides, dilation_rate, name):
    """The 3x3 convolution of a residual network."""
    return conv2d(inputs, channels, 3, strides, dilation_rate, name)


def conv2d(inputs, channels, kernel_size, strides=1, dilation_rate=1, name=None):
    """A convolution without a bias, whose padding is symmetric also with strides."""
    padding = "same"
    if strides > 1 and kernel_size > 1:
        inputs = _pad(inputs, dilation_rate * (kernel_size // 2), f"{name}_pad")
        padding = "valid"
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        strides,
        padding,
        data_format="channels_last",
        dilation_rate=dilation_rate,
        use_bias=False,
        kernel_initializer=fan_out_normal(None),
        name=name,
    )(inputs)


def bottleneck_block(inputs, channels, strides, dilation_rate, convolution, name):
    """1x1, 3x3 and 1x1 convolution beside a shortcut, with `4 * channels` outputs."""
    outputs = conv2d(inputs, channels, 1, name=f"{name}_reduce")
    outputs = _activate(_normalize(outputs, f"{name}_reduce_bn"), f"{name}_reduce_relu")
    outputs = convolution(outputs, channels, strides, dilation_rate, f"{name}_window")
    outputs = _activate(_normalize(outputs, f"{name}_window_bn"), f"{name}_window_relu")
    outputs = conv2d(outputs, BLOCKS["bottleneck"] * channels, 1, name=f"{name}_expand")
    return _join(inputs, _normalize(outputs, f"{name}_expand_bn", last=True), strides, name)


def basic_block(inputs, channels, strides, dilation_rate, convolution, name):
    """Two 3x3 convolutions beside a shortcut."""
    outputs = convolution(inputs, channels, strides, dilation_rate, f"{name}_window1")
    outputs = _activate(_normalize(outputs, f"{name}_window1_bn"), f"{name}_window1_relu")
    outputs = convolution(outputs, channels, 1, dilation_rate, f"{name}_window2")
    return _join(inputs, _normalize(outputs, f"{name}_window2_bn", last=True), strides, name)


def _stem(images, width, stem):
    if stem == "cifar":
        return _activate(_normalize(conv2d(images, width, 3, name="stem"), "stem_bn"), "stem_relu")
    features = _activate(_normalize(conv2d(images, width, 7, 2, name="stem"), "stem_bn"), "stem_relu")
    # Zeros do as well as minus infinity: after a ReLU no maximum is below.
    features = _pad(features, 1, "stem_pool_pad")
    return keras.layers.MaxPooling2D(3, 2, data_format="channels_last", name="stem_pool")(features)


def _join(inputs, outputs, strides, name):
    """Adds the shortcut, which is a convolution where the shapes differ."""
    if strides != 1 or inputs.shape[-1] != outputs.shape[-1]:
        inputs = conv2d(inputs, outputs.shape[-1], 1, strides, name=f"{name}_shortcut")
        inputs = _normalize(inputs, f"{name}_shortcut_bn")
    return _activate(keras.layers.Add(name=f"{name}_add")([inputs, outputs]), f"{name}_relu")


def _normalize(inputs, name, last=False):
    scale = "zeros" if last else "ones"
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale, name=name)(inputs)


def _activate(inputs, name):
    return keras.layers.ReLU(name=name)(inputs)


def _pad(inputs, pixels, name):
    return keras.layers.ZeroPadding2D(pixels, data_format="channels_last", name=name)(inputs)


def _check(blocks, input_shape):
    if not isinstance(blocks, (tuple, list)) or not blocks or not all(integer(each) and each > 0 for each in blocks):
        raise ValueError(f"Expected `blocks` to be positive integers, one per stage. Received: {blocks=}")
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[-1] is None:
        expected = "Expected `input_shape` to be (height, width, channels), with a known number of channels"
        raise ValueError(f"{expected}. Received: {input_shape=}")
