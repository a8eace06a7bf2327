# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for MNIST digits of "Learning to Generate Filters for Convolutional Neural Networks", tables 4 to
7."""

from typing import Any

import keras

from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import symmetric_conv2d
from keras_dynfilter.models.filter_repository.feature_generator import feature_generator
from keras_dynfilter.models.filter_repository.generated_network import generated_conv2d, generated_network
from keras_dynfilter.ops.checks import number

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10
FILTERS = 5  # output channels of each of the two convolutions


def repository_mnist(
    encoder_channels: int = 20,
    base_filters: int | None = 5,
    features_from: str = "post_norm",
    slope: float = 0.01,
    classifier_activation: str | None = "softmax",
    name: str = "repository_mnist",
    **arguments: Any,
) -> keras.Model:
    """Classifies digits with two convolutions whose filters are generated from the features of an autoencoder.

        images -> autoencoder with two encoder layers -> reconstruction
        maps of encoder layer i -> dimension reduction -> features i
        images, features 1 -> RepositoryConv2D 5x5 with 5 filters, ReLU, max pooling
            -> the same three layers with features 2 -> Dense 10 -> classes

    Args:
        encoder_channels: Channels of the encoder layers, and length of each feature vector (n_enc in the paper).
        base_filters: Number of base filters of each convolution (s in the paper). None: 5, the number of filters.
        features_from: Which encoder maps become features: `"pre_norm"`, the output of the convolution, or
            `"post_norm"`, the output of batch normalisation. The paper says "convolution feature maps before LReLU".
        slope: Slope of the leaky ReLUs below zero, which the paper does not give.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.
        **arguments: Further arguments of the `RepositoryConv2D` layers, such as `algorithm`,
            `coefficients_initializer`, `coefficients_bias_initializer`, and `use_bias`: the paper omits biases from its
            formulas.

    Returns:
        A model that maps images, `[batch, 28, 28, 1]` in [0, 1], to `{"classes": [batch, 10], "reconstruction":
        [batch, 28, 28, 1]}`. It has 37,331 trainable parameters by default. Two of its layers are models:
        `"generator"` maps images to features and the reconstruction, `"prediction"` maps images and features to
        classes; see `inspection.repository_swap`. Train the model on the sum of two losses: the categorical
        cross-entropy of the classes, and the binary cross-entropy of the reconstruction, averaged over the pixels.

    Raises:
        ValueError: An argument is not as described.

    Two choices are not from the paper: a sigmoid computes the reconstruction, because the loss requires values in [0,
    1]; and encoder layer i supplies the features for convolution i.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 4 to 7.
    """
    argument_checks.count(encoder_channels, "encoder_channels")
    base_filters = None if base_filters is None else argument_checks.count(base_filters, "base_filters")
    slope = number(slope, "slope", at_least=0)
    argument_checks.activation(classifier_activation, "classifier_activation")
    to_one_position = [(3, 3, 1), (3, 1, 0)]
    generator = feature_generator(
        IMAGE_SHAPE,
        encoder=[(encoder_channels, 1), (encoder_channels, 2)],
        decoder=[None],
        windows=[[(4, 4, 0), *to_one_position], [(2, 2, 0), *to_one_position]],
        slope=slope,
        kernel_size=5,
        encoder_slope=slope,
        features_from=features_from,
    )

    def build(images, features):
        def convolution(inputs, index):
            layer_name = f"conv_{index}"
            return generated_conv2d(
                inputs, features[index], FILTERS, 5, base_filters, name=layer_name, padding="valid", **arguments
            )

        return _classifier(images, convolution, classifier_activation)

    return generated_network(generator, build, "classes", name)


def repository_mnist_baseline(
    use_bias: bool = True, classifier_activation: str | None = "softmax", name: str = "repository_mnist_baseline"
) -> keras.Model:
    """Classifies digits with the prediction network of `repository_mnist` and ordinary, trained filters.

    Args:
        use_bias: Whether the convolutions have a bias.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model that maps `[batch, 28, 28, 1]` to `[batch, 10]`. It has 1,570 parameters, or 1,560 without biases.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 4.
    """
    use_bias = argument_checks.flag(use_bias, "use_bias")
    argument_checks.activation(classifier_activation, "classifier_activation")

    def convolution(inputs, index):
        return symmetric_conv2d(inputs, FILTERS, 5, padding=0, use_bias=use_bias, name=f"conv_{index}")

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _classifier(images, convolution, classifier_activation), name=name)


def _classifier(images, convolution, activation):
    """Computes classes with the prediction network, which calls `convolution(inputs, index)`."""
    outputs = images
    for index in (1, 2):
        outputs = keras.layers.ReLU(name=f"relu_{index}")(convolution(outputs, index))
        outputs = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"pool_{index}")(outputs)
    outputs = keras.layers.Flatten(data_format="channels_last", name="flat")(outputs)
    return keras.layers.Dense(CLASSES, activation, dtype="float32", name="classes")(outputs)
