# SPDX-License-Identifier: Apache-2.0
"""VGG-11 for small images, which CIFAR-10 networks are compared with."""

import keras

from keras_dynfilter.models.filter_repository.building_blocks import conv_block

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg11(input_shape=(32, 32, 3), classes=10, hidden=512, dropout=0.5, classifier_activation="softmax", name="vgg11"):
    """VGG-11 (configuration A) with batch normalisation, and one hidden dense layer in place of two of 4,096.

        images -> [3x3 convolutions, batch normalisation, ReLU, max pooling] five times -> Dense, ReLU, dropout -> Dense

    Args:
        input_shape: `(height, width, channels)`, with sizes that 32 divides.
        classes: Number of classes.
        hidden: Width of the hidden dense layer.
        dropout: Share of its values that are dropped in training.
        classifier_activation: Activation of the classifier; None for logits.
        name: Name of the model.

    Returns:
        A model of `[batch, height, width, channels]` to `[batch, classes]`, of 9,493,770 trainable parameters.

    Raises:
        ValueError: 32 does not divide the sizes.

    Reference:
        [Very Deep Convolutional Networks for Large-Scale Image Recognition](https://arxiv.org/abs/1409.1556) (Simonyan
        and Zisserman, 2014). The filter repository paper names VGG11 as its yardstick and says no more of it.
    """
    height, width, _ = input_shape
    if not height or not width or height % 32 or width % 32:
        raise ValueError(f"Expected `input_shape` to have sizes that 32 divides. Received: {input_shape=}")
    images = outputs = keras.Input(input_shape, name="images")
    for stage, widths in enumerate(STAGES, 1):
        for index, channels in enumerate(widths, 1):
            outputs = conv_block(outputs, channels, 3, 1, 1, 0, f"stage{stage}_conv{index}")
        outputs = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"stage{stage}_pool")(outputs)
    outputs = keras.layers.Flatten(data_format="channels_last", name="flat")(outputs)
    outputs = keras.layers.Dense(hidden, "relu", name="hidden")(outputs)
    outputs = keras.layers.Dropout(dropout, name="dropout")(outputs)
    outputs = keras.layers.Dense(classes, classifier_activation, dtype="float32", name="classes")(outputs)
    return keras.Model(images, outputs, name=name)
