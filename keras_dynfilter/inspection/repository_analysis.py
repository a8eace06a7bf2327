# SPDX-License-Identifier: Apache-2.0
"""What the filter repository networks do inside: coefficients, filters, maps; and filters of another image."""

import keras
import tensorflow as tf

from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.models.filter_repository.autoencoder import RECONSTRUCTION


def repository_swap(model, name="repository_swap"):
    """The network of `model`, with the filters of other images than those that it is to look at.

    Args:
        model: What `repository_mnist`, `repository_mtfl`, `repository_cifar10` or `generated_network` returned.
        name: Name of the new model.

    Returns:
        A model of `{"images": [batch, ...], "filters_of": [batch, ...]}` to what `model` predicts for `images`, with
        the filters that it generates for `filters_of`. It shares the weights of `model`.

    Raises:
        ValueError: `model` is none of these.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 4.4.
    """
    generator, prediction = _parts(model)
    images = keras.Input(generator.input_shape[1:], name="images")
    others = keras.Input(generator.input_shape[1:], name="filters_of")
    features = {key: value for key, value in generator(others).items() if key != RECONSTRUCTION}
    return keras.Model({"images": images, "filters_of": others}, prediction({"images": images, **features}), name=name)


def inspect_repository(model, images):
    """Coefficients, filters and maps of the generated convolutions, for `images`.

    Args:
        model: What `repository_mnist`, `repository_mtfl`, `repository_cifar10` or `generated_network` returned.
        images: `[batch, height, width, channels]`, in [0, 1]. All samples are held at once.

    Returns:
        A dict by the name of the layer, `"conv_1"`, ..., of dicts of NumPy arrays: `"coefficients"`, `[batch,
        base_filters, filters]`; `"filters"`, `[batch, kernel_h, kernel_w, channels, filters]`; and `"maps"`, what the
        layer returns, `[batch, out_height, out_width, filters]`.

    Raises:
        ValueError: `model` is none of these.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 4.4.
    """
    generator, prediction = _parts(model)
    layers = [layer for layer in prediction.layers if isinstance(layer, RepositoryConv2D)]
    images = tf.cast(images, generator.inputs[0].dtype)
    features = {key: value for key, value in generator(images, training=False).items() if key != RECONSTRUCTION}
    # The second input of a layer is a feature input of the network, so features and maps come from one call.
    tensors = [tensor for layer in layers for tensor in (layer.input[1], layer.output)]
    probe = keras.Model(prediction.input, tensors)
    found = probe({"images": images, **features}, training=False)
    return {
        layer.name: {
            "coefficients": layer.coefficients(vector).numpy(),
            "filters": layer.generated_filters(vector).numpy(),
            "maps": maps.numpy(),
        }
        for layer, vector, maps in zip(layers, found[::2], found[1::2])
    }


def _parts(model):
    names = {layer.name: layer for layer in getattr(model, "layers", ())}
    if not {"generator", "prediction"} <= set(names):
        expected = "Expected `model` to have the layers 'generator' and 'prediction', as repository_mnist has"
        raise ValueError(f"{expected}. Received: {model!r}")
    return names["generator"], names["prediction"]
