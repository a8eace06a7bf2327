# SPDX-License-Identifier: Apache-2.0
"""Builds residual networks whose 3x3 convolutions can be replaced by other layers.

`keras.applications` is not used: its ResNets accept no other layer in place of the 3x3 convolutions. They also stride
in other places than the networks of the DDF paper: version 1 in a 1x1 convolution, version 2 in the last block of a
stage.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_dynfilter.layers.initializers import fan_out_normal, uniform_by_fan_in
from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import batch_norm, relu, symmetric_conv2d, zero_padding
from keras_dynfilter.ops.checks import choice, integer, positive

BLOCKS = {"basic": 1, "bottleneck": 4}  # output channels of a block, as a multiple of its width
STEMS = ("imagenet", "cifar")


def resnet(
    blocks: Sequence[int] = (3, 4, 6, 3),
    block: str = "bottleneck",
    convolution: Callable[..., tf.Tensor] | None = None,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    width: int = 64,
    stem: str = "imagenet",
    output_stride: int | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
    name: str = "resnet",
) -> keras.Model:
    """Builds a residual network, version 1.5: strides are in the 3x3 convolutions, not in the 1x1 convolutions before.

        images -> stem -> stages of residual blocks -> mean -> Dense

    Args:
        blocks: Number of blocks in each stage. Every stage except the first one halves the size of the maps and has
            twice the channels of the previous stage.
        block: `"bottleneck"`: a 1x1, a 3x3 and a 1x1 convolution, with four times the width as output channels; or
            `"basic"`: two 3x3 convolutions.
        convolution: Function that replaces the 3x3 convolutions of the blocks: `convolution(inputs, channels, strides,
            dilation_rate, name)` returns a tensor with `channels` channels; see `ddf_convolution`. None: `Conv2D`.
        input_shape: `(height, width, channels)`; height and width may be None.
        classes: Number of classes.
        width: Channels of the stem, and width of the blocks of the first stage.
        stem: `"imagenet"`: a 7x7 convolution and max pooling, both with stride 2; or `"cifar"`, for small images: one
            3x3 convolution with stride 1.
        output_stride: Largest ratio of the image size to the size of the last maps. Stages that would exceed it dilate
            their windows instead of striding. None: no limit.
        include_top: Whether the model ends with the classifier.
        pooling: Pooling over the positions, if `include_top` is False: `"avg"`, `"max"` or None.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model that maps `[batch, height, width, channels]` to `[batch, classes]`. With `include_top=False`, it returns
        `[batch, out_height, out_width, features]`, or `[batch, features]` with `pooling`. The classifier computes in
        float32 under any dtype policy.

    All layers pad the four sides alike; with strides, TensorFlow's `"same"` may pad one side only. The kernels of
    convolutions start from He's normal distribution with the fan-out, the weights of the classifier from a uniform
    distribution. The last normalisation of each block starts with a scale of 0, so that a block starts as its shortcut.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385) (He et al., 2015).
    """
    choice(block, "block", BLOCKS)
    choice(stem, "stem", STEMS)
    choice(pooling, "pooling", (None, "avg", "max"))
    if not isinstance(blocks, (tuple, list)) or not blocks or not all(integer(count) and count > 0 for count in blocks):
        raise ValueError(f"Expected `blocks` to be positive integers, one per stage. Received: {blocks=}")
    if convolution is not None and not callable(convolution):
        raise ValueError(f"Expected `convolution` to be None or a function. Received: {convolution=}")
    argument_checks.image_shape(input_shape, "input_shape")
    width = argument_checks.count(width, "width")
    classes = argument_checks.count(classes, "classes", argument_checks.MAX_CLASSES)
    include_top = argument_checks.flag(include_top, "include_top")
    argument_checks.activation(classifier_activation, "classifier_activation")
    stride, dilation = (4 if stem == "imagenet" else 1), 1
    if output_stride is not None and positive(output_stride, "output_stride") < stride:
        raise ValueError(
            f"Expected `output_stride` to be at least {stride}, that of the stem. Received: {output_stride=}"
        )
    build_block = bottleneck_block if block == "bottleneck" else basic_block

    images = keras.Input(input_shape, name="images")
    features = _stem(images, width, stem)
    for stage, count in enumerate(blocks):
        # The first block of a dilated stage still has the dilation of the previous stage.
        strides, previous_dilation = (1 if stage == 0 else 2), dilation
        if output_stride is not None and stride * strides > output_stride:
            strides, dilation = 1, dilation * strides
        stride *= strides
        for index in range(count):
            features = build_block(
                features,
                width * 2**stage,
                strides if index == 0 else 1,
                previous_dilation if index == 0 else dilation,
                convolution or plain_convolution,
                f"stage{stage + 1}_block{index + 1}",
            )
    if include_top or pooling == "avg":
        features = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="mean")(features)
    elif pooling == "max":
        features = keras.layers.GlobalMaxPooling2D(data_format="channels_last", name="max")(features)
    if include_top:
        features = keras.layers.Dense(
            classes,
            classifier_activation,
            kernel_initializer=uniform_by_fan_in(None, features.shape[-1]),
            bias_initializer=uniform_by_fan_in(None, features.shape[-1]),
            dtype="float32",
            name="predictions",
        )(features)
    return keras.Model(images, features, name=name)


def plain_convolution(inputs: tf.Tensor, channels: int, strides: int, dilation_rate: int, name: str) -> tf.Tensor:
    """Applies an ordinary 3x3 convolution: the default `convolution` of `resnet`."""
    return conv2d(inputs, channels, 3, strides, dilation_rate, name)


def conv2d(
    inputs: tf.Tensor,
    channels: int,
    kernel_size: int,
    strides: int = 1,
    dilation_rate: int = 1,
    name: str | None = None,
) -> tf.Tensor:
    """Applies `symmetric_conv2d` without a bias; the kernel starts from He's normal distribution with the fan-out."""
    return symmetric_conv2d(
        inputs,
        channels,
        kernel_size,
        strides,
        dilation_rate=dilation_rate,
        use_bias=False,
        kernel_initializer=fan_out_normal(None),
        name=name,
    )


def bottleneck_block(
    inputs: tf.Tensor, width: int, strides: int, dilation_rate: int, convolution: Callable[..., tf.Tensor], name: str
) -> tf.Tensor:
    """Adds a 1x1, a 3x3 and a 1x1 convolution, with `4 * width` output channels, to a shortcut."""
    outputs = conv2d(inputs, width, 1, name=f"{name}_reduce")
    outputs = relu(batch_norm(outputs, f"{name}_reduce_bn"), f"{name}_reduce_relu")
    outputs = convolution(outputs, width, strides, dilation_rate, f"{name}_window")
    outputs = relu(batch_norm(outputs, f"{name}_window_bn"), f"{name}_window_relu")
    outputs = conv2d(outputs, BLOCKS["bottleneck"] * width, 1, name=f"{name}_expand")
    return _add_to_shortcut(inputs, batch_norm(outputs, f"{name}_expand_bn", "zeros"), strides, name)


def basic_block(
    inputs: tf.Tensor, width: int, strides: int, dilation_rate: int, convolution: Callable[..., tf.Tensor], name: str
) -> tf.Tensor:
    """Adds two 3x3 convolutions, with `width` output channels, to a shortcut."""
    outputs = convolution(inputs, width, strides, dilation_rate, f"{name}_window1")
    outputs = relu(batch_norm(outputs, f"{name}_window1_bn"), f"{name}_window1_relu")
    outputs = convolution(outputs, width, 1, dilation_rate, f"{name}_window2")
    return _add_to_shortcut(inputs, batch_norm(outputs, f"{name}_window2_bn", "zeros"), strides, name)


def _stem(images, width, stem):
    if stem == "cifar":
        return relu(batch_norm(conv2d(images, width, 3, name="stem"), "stem_bn"), "stem_relu")
    features = relu(batch_norm(conv2d(images, width, 7, 2, name="stem"), "stem_bn"), "stem_relu")
    # Padding with zeros gives the same maxima as padding with minus infinity: after a ReLU, no value is below 0.
    features = zero_padding(features, 1, "stem_pool_pad")
    return keras.layers.MaxPooling2D(3, 2, data_format="channels_last", name="stem_pool")(features)


def _add_to_shortcut(inputs, outputs, strides, name):
    """Adds the inputs of a block to its outputs. If the shapes differ, the inputs pass a 1x1 convolution first."""
    if strides != 1 or inputs.shape[-1] != outputs.shape[-1]:
        inputs = conv2d(inputs, outputs.shape[-1], 1, strides, name=f"{name}_shortcut")
        inputs = batch_norm(inputs, f"{name}_shortcut_bn")
    return relu(keras.layers.Add(name=f"{name}_add")([inputs, outputs]), f"{name}_relu")
