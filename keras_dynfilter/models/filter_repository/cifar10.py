# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10, of "Learning to Generate Filters for Convolutional Neural Networks" (https://arxiv.org/abs/1812.01894)."""

import keras

from keras_dynfilter.models.filter_repository.building_blocks import (
    activate,
    conv2d,
    feature_generator,
    generated_conv2d,
    generated_network,
    normalize,
)

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
    s=None,
    classes=10,
    tap="normalized",
    slope=0.01,
    classifier_activation="softmax",
    name="repository_cifar10",
    **arguments,
):
    """Classifies small photographs with four convolutions whose filters are generated from features of an autoencoder.

        images -> autoencoder of four encoder layers -> reconstruction
        encoder layer i -> dimension reduction -> features i
        images, features 1 -> RepositoryConv2D 3x3, batch normalisation, ReLU
            -> with features 2, 3, 4 the same again, of stride 2 -> mean -> Dense -> classes

    Args:
        s: Base filters of each convolution. None: as many as it has filters (64, 128, 256, 256), as in the paper.
        classes: Number of classes.
        tap: `"normalized"`: features are made of encoder values before the ReLU; or `"convolution"`: of those before
            batch normalisation.
        slope: Slope of the leaky ReLUs of the dimension reduction below zero, which the paper does not give.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.
        **arguments: Further ones of the generated `RepositoryConv2D`, such as `path`, `coefficients_initializer`,
            `coefficients_bias_initializer`.

    Returns:
        A model of `[batch, 32, 32, 3]`, in [0, 1], to `{"classes": [batch, classes], "reconstruction": [batch, 32, 32,
        3]}`, of 21,469,805 trainable parameters. Its layers `"generator"` and `"prediction"` are models, of images to
        features and of images and features to classes; see `repository_swap`. Trained as `repository_mnist`.

    Raises:
        ValueError: An argument is not as described.

    The paper contradicts itself, and we follow its output sizes: convolutions are printed with padding 0, which gives
    other sizes, and have 1 here; the autoencoder is printed to end at 64x64, which is not the size of the images, and
    ends at 32x32. The 64 base filters of the first layer have 27 values each and cannot be orthogonal to one another:
    there the values start orthonormal over the filters.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 15 to 20.
    """
    generator = feature_generator(IMAGE_SHAPE, ENCODER, DECODER, WINDOWS, slope, tap=tap)

    def build(images, features):
        def convolution(inputs, index, filters, strides):
            return generated_conv2d(inputs, features[index], filters, 3, s, strides, f"conv_{index}", **arguments)

        return _classifier(images, convolution, classes, classifier_activation)

    return generated_network(generator, build, "classes", name)


def repository_cifar10_baseline(
    classes=10, use_bias=True, classifier_activation="softmax", name="repository_cifar10_baseline"
):
    """The prediction network of `repository_cifar10` with trained filters, the same for all images.

    Args:
        classes: Number of classes.
        use_bias: Whether the convolutions have a bias, which batch normalisation makes superfluous.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model of `[batch, 32, 32, 3]` to `[batch, classes]`, of 964,874 trainable parameters; 964,170 without the
        bias.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 15.
    """

    def convolution(inputs, index, filters, strides):
        return conv2d(inputs, filters, 3, strides, 1, f"conv_{index}", use_bias)

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _classifier(images, convolution, classes, classifier_activation), name=name)


def _classifier(images, convolution, classes, activation):
    outputs = images
    for index, (filters, strides) in enumerate(LAYERS, 1):
        outputs = normalize(convolution(outputs, index, filters, strides), f"conv_{index}_bn")
        outputs = activate(outputs, 0, f"conv_{index}_relu")
    outputs = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="mean")(outputs)
    return keras.layers.Dense(classes, activation, dtype="float32", name="classes")(outputs)
