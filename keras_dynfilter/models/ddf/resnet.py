# SPDX-License-Identifier: Apache-2.0
"""Builds the ResNets of "Decoupled Dynamic Filter Networks", with DDF in place of 3x3 convolutions, and baselines."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models.baselines.resnet import conv2d, resnet
from keras_dynfilter.models.ddf.authors_state import load_authors_state
from keras_dynfilter.models.ddf.state_files import Path

DEPTHS: dict[int, dict[str, Any]] = {
    18: dict(blocks=(2, 2, 2, 2), block="basic"),
    50: dict(blocks=(3, 4, 6, 3), block="bottleneck"),
    101: dict(blocks=(3, 4, 23, 3), block="bottleneck"),
    152: dict(blocks=(3, 8, 36, 3), block="bottleneck"),
}


def ddf_resnet50(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    squeeze_ratio: float = 0.2,
    combine: str = "mul",
    heads: int = 1,
    branches: str = "both",
    spatial_norm: str | keras.layers.Layer | None = "filter",
    channel_norm: str | keras.layers.Layer | None = "filter",
    width: int = 64,
    stem: str = "imagenet",
    output_stride: int | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
    weights: Mapping[str, Any] | Path | None = None,
    name: str = "ddf_resnet50",
) -> keras.Model:
    """Builds ResNet-50 with `DDF2D` in place of the 3x3 convolution of every block.

    The model has 16,843,748 trainable parameters; the paper prints 16.8M. Keras's `count_params` adds the moving means
    and variances of batch normalisation. `inspection.count_flops` reproduces the number of operations in the paper.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        classes: Number of classes.
        squeeze_ratio: Argument of `DDF2D`: width of the bottleneck that generates the channel filters, relative to the
            number of channels. The paper's networks use the defaults of all arguments of `DDF2D`; its authors' code
            also offers `combine="add"`.
        combine: Argument of `DDF2D`: `"mul"` or `"add"`.
        heads: Argument of `DDF2D`: number of groups of channels; each group has its own spatial filters.
        branches: Argument of `DDF2D`: `"both"`, `"spatial"` or `"channel"`.
        spatial_norm: Argument of `DDF2D`: normalisation of the spatial filters, `"filter"`, `"batch"`, `"sigmoid"`,
            None or a Keras layer.
        channel_norm: Argument of `DDF2D`: normalisation of the channel filters, one of the values of `spatial_norm`.
        width: Channels of the stem, and width of the first stage. This argument and all following ones are arguments of
            `resnet`.
        stem: `"imagenet"`, or `"cifar"` for small images.
        output_stride: Largest ratio of the image size to the size of the last maps. None: no limit; the ratio is then
            32, or 8 with the `"cifar"` stem.
        include_top: Whether the model ends with the classifier.
        pooling: Pooling over the positions, if `include_top` is False: `"avg"`, `"max"` or None.
        classifier_activation: Activation of the classifier; None for logits.
        weights: A state of the authors' PyTorch networks, or the path of its file: see `load_authors_state`; or a file
            `.weights.h5` of Keras. None: random weights.
        name: Name of the model.

    Returns:
        A model that maps `[batch, height, width, channels]` to `[batch, classes]`; see `resnet` for its outputs with
        `include_top=False`.

    Raises:
        ValueError: An argument is not as described, or `weights` does not fit the model.

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
        weights=weights,
        name=name,
    )


def ddf_resnet101(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    squeeze_ratio: float = 0.2,
    name: str = "ddf_resnet101",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-101 with `DDF2D` in place of the 3x3 convolution of every block: 28,146,912 trainable parameters.

    `**arguments` are further arguments of `ddf_resnet50`.
    """
    return _ddf_resnet(101, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet152(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    squeeze_ratio: float = 0.2,
    name: str = "ddf_resnet152",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-152 with `DDF2D` in place of the 3x3 convolution of every block: 37,462,900 trainable parameters.

    `**arguments` are further arguments of `ddf_resnet50`.
    """
    return _ddf_resnet(152, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet18(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    squeeze_ratio: float = 0.2,
    name: str = "ddf_resnet18",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-18 with `DDF2D` and a 1x1 convolution in place of every 3x3 convolution of the blocks.

    This network is an interpretation of the paper, which reports 7.7M parameters and 0.4B operations. Neither the paper
    nor its authors' code describes the architecture. DDF cannot change the number of channels, but three of the 3x3
    convolutions of ResNet-18 do. With the paper's `squeeze_ratio` of 0.2, this network has 4.27M parameters and 0.37B
    operations. With 0.5, it has 7.69M parameters and 0.37B operations, which agrees with the paper but may be a
    coincidence.

    `**arguments` are further arguments of `ddf_resnet50`.
    """
    return _ddf_resnet(18, squeeze_ratio, input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet18_baseline(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    name: str = "ddf_resnet18_baseline",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-18, the baseline of `ddf_resnet18`: 11,689,512 trainable parameters.

    `**arguments` are further arguments of `resnet`.
    """
    return resnet(**DEPTHS[18], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet50_baseline(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    name: str = "ddf_resnet50_baseline",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-50, the baseline of `ddf_resnet50`: 25,557,032 trainable parameters.

    `**arguments` are further arguments of `resnet`.
    """
    return resnet(**DEPTHS[50], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet101_baseline(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    name: str = "ddf_resnet101_baseline",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-101, the baseline of `ddf_resnet101`: 44,549,160 trainable parameters.

    `**arguments` are further arguments of `resnet`.
    """
    return resnet(**DEPTHS[101], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_resnet152_baseline(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    name: str = "ddf_resnet152_baseline",
    **arguments: Any,
) -> keras.Model:
    """Builds ResNet-152, the baseline of `ddf_resnet152`: 60,192,808 trainable parameters.

    `**arguments` are further arguments of `resnet`.
    """
    return resnet(**DEPTHS[152], input_shape=input_shape, classes=classes, name=name, **arguments)


def ddf_convolution(pointwise: bool = False, **arguments: Any) -> Callable[..., tf.Tensor]:
    """Returns a function for the argument `convolution` of `resnet` that applies `DDF2D` with a 3x3 window.

    Args:
        pointwise: Whether a 1x1 convolution follows each `DDF2D`. Basic blocks need it to change the number of
            channels.
        **arguments: Arguments of `DDF2D`.

    Returns:
        A function of `(inputs, channels, strides, dilation_rate, name)` that returns a tensor.
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
    weights=None,
    **arguments,
):
    """Builds the ResNet of this depth with DDF; `**arguments` are arguments of `resnet`."""
    if not isinstance(weights, (type(None), str, os.PathLike, Mapping)):
        raise ValueError(
            f"Expected `weights` to be None, a dict of arrays, or the path of a file. Received: {weights=}"
        )
    convolution = ddf_convolution(
        pointwise=DEPTHS[depth]["block"] == "basic",
        squeeze_ratio=squeeze_ratio,
        combine=combine,
        heads=heads,
        branches=branches,
        spatial_norm=spatial_norm,
        channel_norm=channel_norm,
    )
    model = resnet(**DEPTHS[depth], convolution=convolution, **arguments)
    if isinstance(weights, (str, os.PathLike)) and os.fspath(weights).endswith(".weights.h5"):
        model.load_weights(weights)
    elif weights is not None:
        load_authors_state(model, weights)
    return model
