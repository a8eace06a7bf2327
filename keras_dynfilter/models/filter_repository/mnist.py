# SPDX-License-Identifier: Apache-2.0
"""Digits, of "Learning to Generate Filters for Convolutional Neural Networks" (https://arxiv.org/abs/1812.01894)."""

import keras

from keras_dynfilter.models.filter_repository.building_blocks import (
    conv2d,
    feature_generator,
    generated_conv2d,
    generated_network,
)
from keras_dynfilter.ops.checks import positive

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10
FILTERS = 5  # of both convolutions


def repository_mnist(
    n_enc=20,
    s=5,
    tap="normalized",
    slope=0.01,
    classifier_activation="softmax",
    name="repository_mnist",
    **arguments,
):
    """Classifies digits with two convolutions whose filters are generated from features of an autoencoder.

        images -> autoencoder of two encoder layers, n_enc channels each -> reconstruction
        encoder layer i -> dimension reduction -> features i
        images, features 1 -> RepositoryConv2D 5x5 (5 filters), ReLU, max pooling
            -> with features 2 the same again -> Dense 10 -> classes

    Args:
        n_enc: Channels of the encoder, and number of features.
        s: Base filters of each convolution.
        tap: `"normalized"`: features are made of encoder values before the leaky ReLU; or `"convolution"`: of those
            before batch normalisation. The paper says "convolution feature maps before LReLU".
        slope: Slope of the leaky ReLUs below zero, which the paper does not give.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.
        **arguments: Further ones of the generated `RepositoryConv2D`, such as `path`, `coefficients_initializer`,
            `coefficients_bias_initializer`, and `use_bias`: the paper leaves biases out of its formulas.

    Returns:
        A model of `[batch, 28, 28, 1]`, in [0, 1], to `{"classes": [batch, 10], "reconstruction": [batch, 28, 28, 1]}`,
        of 37,331 trainable parameters. Its layers `"generator"` and `"prediction"` are models, of images to features
        and of images and features to classes; see `repository_swap`. Trained on the sum of the categorical
        cross-entropy of the classes and the binary one of the reconstruction, mean over the pixels.

    Raises:
        ValueError: An argument is not as described.

    Not in the paper: the sigmoid of the reconstruction, which its loss needs, and that encoder layer i makes the
    filters of convolution i.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 4 to 7.
    """
    positive(n_enc, "n_enc")
    last = [(3, 3, 1), (3, 1, 0)]
    generator = feature_generator(
        IMAGE_SHAPE,
        encoder=[(n_enc, 1), (n_enc, 2)],
        decoder=[None],
        windows=[[(4, 4, 0), *last], [(2, 2, 0), *last]],
        slope=slope,
        kernel_size=5,
        encoder_slope=slope,
        tap=tap,
    )

    def build(images, features):
        def convolution(inputs, index):
            name = f"conv_{index}"
            return generated_conv2d(inputs, features[index], FILTERS, 5, s, 1, name, padding="valid", **arguments)

        return _classifier(images, convolution, classifier_activation)

    return generated_network(generator, build, "classes", name)


def repository_mnist_baseline(use_bias=True, classifier_activation="softmax", name="repository_mnist_baseline"):
    """The prediction network of `repository_mnist` with trained filters, the same for all images.

    Args:
        use_bias: Whether the convolutions have a bias.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model of `[batch, 28, 28, 1]` to `[batch, 10]`, of 1,570 parameters; 1,560 without the bias.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 4.
    """

    def convolution(inputs, index):
        return conv2d(inputs, FILTERS, 5, 1, 0, f"conv_{index}", use_bias)

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _classifier(images, convolution, classifier_activation), name=name)


def _classifier(images, convolution, activation):
    outputs = images
    for index in (1, 2):
        outputs = keras.layers.ReLU(name=f"relu_{index}")(convolution(outputs, index))
        outputs = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"pool_{index}")(outputs)
    outputs = keras.layers.Flatten(data_format="channels_last", name="flat")(outputs)
    return keras.layers.Dense(CLASSES, activation, dtype="float32", name="classes")(outputs)
