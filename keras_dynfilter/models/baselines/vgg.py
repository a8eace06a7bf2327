# SPDX-License-Identifier: Apache-2.0
"""Builds VGG-11 for small images: the filter repository paper compares its CIFAR-10 network with it."""

import keras

from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import conv_norm_relu
from keras_dynfilter.ops.checks import number

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels of the convolutions between two poolings


def vgg11(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    hidden: int = 512,
    dropout: float = 0.5,
    classifier_activation: str | None = "softmax",
    name: str = "vgg11",
) -> keras.Model:
    """Builds VGG-11 (configuration A) with batch normalisation and a single hidden dense layer.

        images -> [3x3 convolutions, batch normalisation, ReLU, max pooling] five times -> Dense, ReLU, dropout -> Dense

    Args:
        input_shape: `(height, width, channels)`; height and width are multiples of 32.
        classes: Number of classes.
        hidden: Units of the hidden dense layer, which replaces the original's two layers of 4,096 units.
        dropout: Fraction of the hidden units that are dropped in training.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model that maps `[batch, height, width, channels]` to `[batch, classes]`. It has 9,493,770 trainable
        parameters by default.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Very Deep Convolutional Networks for Large-Scale Image Recognition](https://arxiv.org/abs/1409.1556) (Simonyan
        and Zisserman, 2014). The filter repository paper names "VGG11" without further details.
    """
    height, width, _ = argument_checks.image_shape(input_shape, "input_shape", known=True)
    if height is None or width is None or height % 32 or width % 32:
        raise ValueError(f"Expected `input_shape` to have sizes that 32 divides. Received: {input_shape=}")
    classes = argument_checks.count(classes, "classes", argument_checks.MAX_CLASSES)
    hidden = argument_checks.count(hidden, "hidden")
    dropout = number(dropout, "dropout", at_least=0, below=1)
    argument_checks.activation(classifier_activation, "classifier_activation")
    images = outputs = keras.Input(input_shape, name="images")
    for stage, widths in enumerate(STAGES, 1):
        for index, channels in enumerate(widths, 1):
            outputs = conv_norm_relu(outputs, channels, 3, name=f"stage{stage}_conv{index}")
        outputs = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"stage{stage}_pool")(outputs)
    outputs = keras.layers.Flatten(data_format="channels_last", name="flat")(outputs)
    outputs = keras.layers.Dense(hidden, "relu", name="hidden")(outputs)
    outputs = keras.layers.Dropout(dropout, name="dropout")(outputs)
    outputs = keras.layers.Dense(classes, classifier_activation, dtype="float32", name="classes")(outputs)
    return keras.Model(images, outputs, name=name)
