# SPDX-License-Identifier: Apache-2.0
"""Builds the autoencoder whose encoder layers supply the features for generated filters."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D
from keras_dynfilter.models.baselines.blocks import batch_norm, conv_norm_relu, relu, symmetric_conv2d
from keras_dynfilter.ops.checks import choice, positive

FEATURES_FROM = ("pre_norm", "post_norm")
RECONSTRUCTION = "reconstruction"  # name of the output, and of the layer that computes it


def autoencoder(
    images: tf.Tensor,
    encoder: Sequence[tuple[int, int]],
    decoder: Sequence[int | None],
    kernel_size: int = 3,
    encoder_slope: float = 0.0,
    decoder_slope: float = 0.0,
    features_from: str = "post_norm",
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Encodes and reconstructs images, and returns the maps of every encoder layer.

        images -> [convolution, batch normalisation, (leaky) ReLU] per encoder layer -> code
        code -> [2x upsampling, convolution, batch normalisation, (leaky) ReLU] per decoder layer
             -> convolution, sigmoid -> reconstruction

    All convolutions pad the four sides alike, including the strided ones.

    Args:
        images: Tensor of a Keras model, `[batch, height, width, channels]`, in [0, 1].
        encoder: `(channels, strides)` of each encoder layer.
        decoder: Channels of each decoder layer. None stands for a decoder layer that only upsamples. If the last entry
            is None, its upsampling is fused into the convolution that computes the reconstruction.
        kernel_size: Positive odd integer: height and width of all windows.
        encoder_slope: Slope of the encoder's leaky ReLUs below zero; 0 for ReLU.
        decoder_slope: Slope of the decoder's leaky ReLUs below zero; 0 for ReLU.
        features_from: Which maps of an encoder layer to return: `"pre_norm"`, the output of the convolution, or
            `"post_norm"`, the output of batch normalisation. Neither has passed the ReLU.

    Returns:
        A list of the maps of the encoder layers, `[batch, height, width, channels]` each; and the reconstruction, with
        the shape of `images`. The layers have fixed names, so a model can hold only one autoencoder; put a second
        autoencoder into a nested model.

    Raises:
        ValueError: `kernel_size` is not a positive odd integer, `features_from` is unknown, or the decoder does not end
            at the size of `images`.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3 and tables 5, 9 and 16.
    """
    if positive(kernel_size, "kernel_size") % 2 == 0:
        raise ValueError(f"Expected `kernel_size` to be odd. Received: {kernel_size=}")
    choice(features_from, "features_from", FEATURES_FROM)
    encoder_maps, code = _encode(images, encoder, kernel_size, encoder_slope, features_from)
    logits = _decode(code, decoder, images.shape[-1], kernel_size, decoder_slope)
    if tuple(logits.shape[1:3]) != tuple(images.shape[1:3]):
        expected = f"Expected the decoder to end at the size of the images, {tuple(images.shape[1:3])}"
        raise ValueError(f"{expected}. Received: {tuple(logits.shape[1:3])}, with encoder={encoder}, decoder={decoder}")
    # Float32 even under mixed precision: the cross-entropy loss computes logarithms.
    return encoder_maps, keras.layers.Activation("sigmoid", dtype="float32", name=RECONSTRUCTION)(logits)


def _encode(images, encoder, kernel_size, slope, features_from):
    """Returns the maps of each encoder layer, and the code."""
    maps, outputs = [], images
    for index, (channels, strides) in enumerate(encoder, 1):
        name = f"encoder_{index}"
        convolved = symmetric_conv2d(outputs, channels, kernel_size, strides, name=name)
        normalized = batch_norm(convolved, f"{name}_bn")
        maps.append(normalized if features_from == "post_norm" else convolved)
        outputs = relu(normalized, f"{name}_relu", slope)
    return maps, outputs


def _decode(code, decoder, image_channels, kernel_size, slope):
    """Returns the logits of the reconstruction."""
    fuse_last = bool(decoder) and decoder[-1] is None
    outputs = code
    for index, channels in enumerate(decoder[:-1] if fuse_last else decoder, 1):
        name = f"decoder_{index}"
        outputs = keras.layers.UpSampling2D(2, data_format="channels_last", name=f"{name}_up")(outputs)
        if channels is not None:
            outputs = conv_norm_relu(outputs, channels, kernel_size, negative_slope=slope, name=name)
    if fuse_last:
        return UpsamplingConv2D(image_channels, kernel_size, name="decoder_out")(outputs)
    return symmetric_conv2d(outputs, image_channels, kernel_size, name="decoder_out")
