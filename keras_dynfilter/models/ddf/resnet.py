# SPDX-License-Identifier: Apache-2.0
"""Networks of "Decoupled Dynamic Filter Networks" (https://arxiv.org/abs/2104.14107), and their baselines."""

from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models.baselines.resnet import conv2d, resnet

DEPTHS = {
    18: dict(blocks=(2, 2, 2, 2), block="basic"),
    50: dict(blocks=(3, 4, 6, 3), block="bottleneck"),
    101: dict(blocks=(3, 4, 23, 3), block="bottleneck"),
    152: dict(blocks=(3, 8, 36, 3), block="bottleneck"),
}


def ddf_resnet50(
    input_shape=(224, 224, 3),
    classes=1000,
    squeeze_ratio=0.2,
    combine="mul",
    heads=1,
    branches="both",
    spatial_norm="filter",
    channel_norm="filter",
    width=64,
    stem="imagenet",
    output_stride=None,
    include_top=True,
    pooling=None,
    classifier_activation="softmax",
    name="ddf_resnet50",
):
    """ResNet-50 with `DDF2D` in place of the 3x3 convolution of every block.

    The 16.8M parameters that the paper prints are the trained ones, 16,843,748 here. Keras's `count_params` adds the
    moving means and variances of batch normalisation. `models.count_flops` gives the operations that the paper prints.

    Args:
        input_shape: `(height, width, channels)`; sizes may be None.
        classes: Number of classes.
        squeeze_ratio: Of `DDF2D`, as are the next five. The paper's networks have the defaults; its authors' code also
            has `combine="add"`.
        combine: `"mul"` or `"add"`.
        heads: Number of groups of channels that have spatial filters of their own.
        branches: `"both"`, `"spatial"` or `"channel"`.
        spatial_norm: Normalisation of the spatial filters: `"filter"`, `"batch"`, `"sigmoid"`, None or a Keras layer.
        channel_norm: Normalisation of the channel filters, in the same words.
        width: Of `resnet`, as are all that follow: channels of the first stage.
        stem: `"imagenet"`, or `"cifar"` for small images.
        output_stride: Size of the images over that of the last features; None: 32, or 8 with the small stem.
        include_top: Whether to end with the classifier.
        pooling: Without the top: None, `"avg"` or `"max"`.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model of `[batch, height, width, channels]` to `[batch, classes]`; see `resnet` for those without the top.

    Raises:
        ValueError: An argument is not as described.

    Example:

    >>> model = ddf_resnet50((None, None, 3))
    >>> sum(math.prod(weight.shape) for weight in model.trainable_weights)
    16843748

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 4.1.
    """
    return _ddf_resnet(
        50,
        squeeze_ratio,
        combine,
        heads,
        branches,
        spatial_norm,
        channel_norm,
        input_shape=input_shape,
        classes=classes,
        width=width,
        stem=stem,
        output_stride=output_stride,
        include_top=include_top,
        pooling=pooling,
        classifier_activation=classifier_activation,
        name=name,
    )


def ddf_resnet101(input_shape=(224, 224, 3), classes=1000, squeeze_ratio=0.2, name="ddf_resnet101", **arguments):
    """The network of `ddf_resnet50` with the blocks of ResNet-101: 28,146,912 trainable parameters.

    `**arguments` are further ones of `ddf_resnet50`.
    """
    return _ddf_resnet(101, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet152(input_shape=(224, 224, 3), classes=1000, squeeze_ratio=0.2, name="ddf_resnet152", **arguments):
    """The network of `ddf_resnet50` with the blocks of ResNet-152: 37,462,900 trainable parameters.

    `**arguments` are further ones of `ddf_resnet50`.
    """
    return _ddf_resnet(152, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet18(input_shape=(224, 224, 3), classes=1000, squeeze_ratio=0.2, name="ddf_resnet18", **arguments):
    """ResNet-18 with `DDF2D` and a 1x1 convolution in place of every 3x3 convolution of the blocks.

    This is our reading of the paper, not its network. DDF cannot change the number of channels, as three of the 3x3
    convolutions of ResNet-18 do, and neither the paper nor its authors' code says what takes their place. The paper
    prints 7.7M parameters and 0.4B operations. With its `squeeze_ratio` of 0.2, this network has 4.27M and 0.37B. With
    0.5 it has 7.69M and 0.37B, which agrees with both, but may be a coincidence.

    `**arguments` are further ones of `ddf_resnet50`.
    """
    return _ddf_resnet(18, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet18_baseline(input_shape=(224, 224, 3), classes=1000, name="ddf_resnet18_baseline", **arguments):
    """ResNet-18, the baseline of `ddf_resnet18`: 11,689,512 trainable parameters.

    `**arguments` are further ones of `resnet`.
    """
    return resnet(**DEPTHS[18], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet50_baseline(input_shape=(224, 224, 3), classes=1000, name="ddf_resnet50_baseline", **arguments):
    """ResNet-50, the baseline of `ddf_resnet50`: 25,557,032 trainable parameters.

    `**arguments` are further ones of `resnet`.
    """
    return resnet(**DEPTHS[50], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet101_baseline(input_shape=(224, 224, 3), classes=1000, name="ddf_resnet101_baseline", **arguments):
    """ResNet-101, the baseline of `ddf_resnet101`: 44,549,160 trainable parameters.

    `**arguments` are further ones of `resnet`.
    """
    return resnet(**DEPTHS[101], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet152_baseline(input_shape=(224, 224, 3), classes=1000, name="ddf_resnet152_baseline", **arguments):
    """ResNet-152, the baseline of `ddf_resnet152`: 60,192,808 trainable parameters.

    `**arguments` are further ones of `resnet`.
    """
    return resnet(**DEPTHS[152], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_convolution(pointwise=False, **arguments):
    """What makes `resnet` a network of DDF: `DDF2D` in the role of its 3x3 convolutions.

    Args:
        pointwise: Whether a 1x1 convolution follows each. Basic blocks need it, where the number of channels changes.
        **arguments: Arguments of `DDF2D`.

    Returns:
        A function of `(inputs, channels, strides, dilation_rate, name)` that returns the outputs: the argument
        `convolution` of `resnet`.
    """

    def convolution(inputs, channels, strides, dilation_rate, name):
        layer = DDF2D(3, strides, dilation_rate, data_format="channels_last", name=name, **arguments)
        outputs = layer(inputs)
        return conv2d(outputs, channels, 1, name=f"{name}_pointwise") if pointwise else outputs

    return convolution


def _ddf_resnet(
    depth,
    squeeze_ratio,
    combine="mul",
    heads=1,
    branches="both",
    spatial_norm="filter",
    channel_norm="filter",
    **arguments,
):
    convolution = ddf_convolution(
        pointwise=DEPTHS[depth]["block"] == "basic",
        squeeze_ratio=squeeze_ratio,
        combine=combine,
        heads=heads,
        branches=branches,
        spatial_norm=spatial_norm,
        channel_norm=channel_norm,
    )
    return resnet(**DEPTHS[depth], convolution=convolution, **arguments)
