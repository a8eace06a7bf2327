# SPDX-License-Identifier: Apache-2.0
"""Prepares photographs for networks that were trained on ImageNet in PyTorch."""

import tensorflow as tf

from keras_dynfilter.ops import checks

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def preprocess_imagenet(images: tf.Tensor, size: int = 224) -> tf.Tensor:
    """Resizes photographs, crops their centre, and normalises their channels, as the authors' evaluation of DDF does.

    The shorter side becomes `size * 256 / 224` pixels, by bicubic interpolation with antialiasing.

    Args:
        images: RGB photographs with values from 0 to 255, `[height, width, 3]` or `[batch, height, width, 3]`.
        size: Height and width of the crop in pixels.

    Returns:
        `[size, size, 3]` or `[batch, size, size, 3]`, in float32, for models such as `ddf_resnet50` with the weights
        of `load_authors_state`.

    Raises:
        ValueError: The shape of `images` is not as described, or `size` is not a positive integer.

    Example:

    >>> preprocess_imagenet(np.zeros((300, 400, 3), "uint8")).shape
    TensorShape([224, 224, 3])
    """
    size = checks.positive(size, "size")
    images = tf.convert_to_tensor(images)
    shape = images.shape
    if shape.rank not in (3, 4) or shape[-1] != 3 or None in shape[-3:] or 0 in shape[-3:]:
        expected = "Expected `images` to have shape (height, width, 3) or (batch, height, width, 3), with known sizes"
        raise ValueError(f"{expected}. Received: images.shape={shape}")
    height, width = shape[-3:-1]
    shorter = round(size * 256 / 224)
    scaled = [shorter * side // min(height, width) for side in (height, width)]
    pixels = tf.cast(images, tf.float32)
    for sizes in ([height, scaled[1]], scaled):  # as Pillow does: the width first, with integers in between
        pixels = tf.image.resize(pixels, sizes, "bicubic", antialias=True)
        pixels = tf.round(tf.clip_by_value(pixels, 0, 255))
    top, left = (round((side - size) / 2) for side in scaled)
    pixels = pixels[..., top : top + size, left : left + size, :]
    return (pixels / 255 - tf.constant(MEAN)) / tf.constant(DEVIATION)
