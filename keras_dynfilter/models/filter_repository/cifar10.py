# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for CIFAR-10 of "Learning to Generate Filters for Convolutional Neural Networks", tables 15 to
20."""

from typing import Any

import keras

from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import batch_norm, relu, symmetric_conv2d
from keras_dynfilter.models.filter_repository.feature_generator import feature_generator
from keras_dynfilter.models.filter_repository.generated_network import generated_conv2d, generated_network
from keras_dynfilter.ops.checks import number

IMAGE_SHAPE = (32, 32, 3)
LAYERS = ((64, 1), (128, 2), (256, 2), (256, 2))  # filters and strides
ENCODER = ((64, 1), (96, 2), (128, 2), (128, 2))
DECODER = (128, 96, 96)
WINDOWS = (
    ((4, 4, 0), (4, 4, 0), (2, 1, 0)),
    ((4, 4, 0), (4, 1, 0)),
    ((4, 4, 0), (2, 1, 0)),
    ((4, 1, 0),),
)


def repository_cifar10(
    base_filters: int | None = None,
    classes: int = 10,
    features_from: str = "post_norm",
    slope: float = 0.01,
    classifier_activation: str | None = "softmax",
    name: str = "repository_cifar10",
    **arguments: Any,
) -> keras.Model:
    """Classifies small photographs with four convolutions whose filters are generated from autoencoder features.

        images -> autoencoder with four encoder layers -> reconstruction
        maps of encoder layer i -> dimension reduction -> features i
        images, features 1 -> RepositoryConv2D 3x3, batch normalisation, ReLU
            -> the same three layers with stride 2, for features 2, 3 and 4 -> mean -> Dense -> classes

    Args:
        base_filters: Number of base filters of each convolution. None: the number of filters of the convolution (64,
            128, 256, 256), as in the paper.
        classes: Number of classes.
        features_from: Which encoder maps become features: `"pre_norm"`, the output of the convolution, or
            `"post_norm"`, the output of batch normalisation. The paper says "convolution feature maps before LReLU".
        slope: Slope of the leaky ReLUs of the dimension reductions below zero, which the paper does not give.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.
        **arguments: Further arguments of the `RepositoryConv2D` layers, such as `algorithm`,
            `coefficients_initializer`, `coefficients_bias_initializer`.

    Returns:
        A model that maps images, `[batch, 32, 32, 3]` in [0, 1], to `{"classes": [batch, classes], "reconstruction":
        [batch, 32, 32, 3]}`. It has 21,469,805 trainable parameters by default. Two of its layers are models:
        `"generator"` maps images to features and the reconstruction, `"prediction"` maps images and features to
        classes; see `inspection.repository_swap`. Train the model on the losses of `repository_mnist`.

    Raises:
        ValueError: An argument is not as described.

    The paper contradicts itself in two places; this model follows the output sizes that the paper prints. The paper
    prints padding 0 for the convolutions, which yields other sizes; here, they have padding 1. The paper prints 64x64
    as the last size of the autoencoder, which is not the size of the images; here, it is 32x32.

    The first layer has 64 base filters of 27 values each, so the base filters cannot be orthogonal to one another.
    Instead, the 27 vectors that each hold one value of all 64 base filters start orthonormal.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 15 to 20.
    """
    base_filters = None if base_filters is None else argument_checks.count(base_filters, "base_filters")
    classes = argument_checks.count(classes, "classes", argument_checks.MAX_CLASSES)
    slope = number(slope, "slope", at_least=0)
    argument_checks.activation(classifier_activation, "classifier_activation")
    generator = feature_generator(IMAGE_SHAPE, ENCODER, DECODER, WINDOWS, slope, features_from=features_from)

    def build(images, features):
        def convolution(inputs, index, filters, strides):
            return generated_conv2d(
                inputs, features[index], filters, 3, base_filters, strides, f"conv_{index}", **arguments
            )

        return _classifier(images, convolution, classes, classifier_activation)

    return generated_network(generator, build, "classes", name)


def repository_cifar10_baseline(
    classes: int = 10,
    use_bias: bool = True,
    classifier_activation: str | None = "softmax",
    name: str = "repository_cifar10_baseline",
) -> keras.Model:
    """Classifies small photographs with the prediction network of `repository_cifar10` and ordinary, trained filters.

    Args:
        classes: Number of classes.
        use_bias: Whether the convolutions have a bias, which is redundant before batch normalisation.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model that maps `[batch, 32, 32, 3]` to `[batch, classes]`. It has 964,874 trainable parameters, or 964,170
        without biases.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 15.
    """
    classes = argument_checks.count(classes, "classes", argument_checks.MAX_CLASSES)
    use_bias = argument_checks.flag(use_bias, "use_bias")
    argument_checks.activation(classifier_activation, "classifier_activation")

    def convolution(inputs, index, filters, strides):
        return symmetric_conv2d(inputs, filters, 3, strides, use_bias=use_bias, name=f"conv_{index}")

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _classifier(images, convolution, classes, classifier_activation), name=name)


def _classifier(images, convolution, classes, activation):
    """Computes classes with the prediction network, which calls `convolution(inputs, index, filters, strides)`."""
    outputs = images
    for index, (filters, strides) in enumerate(LAYERS, 1):
        outputs = batch_norm(convolution(outputs, index, filters, strides), f"conv_{index}_bn")
        outputs = relu(outputs, f"conv_{index}_relu")
    outputs = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="mean")(outputs)
    return keras.layers.Dense(classes, activation, dtype="float32", name="classes")(outputs)
