# SPDX-License-Identifier: Apache-2.0
"""Augments images with RandAugment, with the settings that the DDF networks were trained with.

The result is a function of a key, so that a run can resume. The layer of Keras draws from its own state instead.
"""

import math

import tensorflow as tf

from examples.experiments.data.step_datasets import random_key

HIGHEST = 10.0  # magnitude
DEVIATION = 0.5  # standard deviation of the magnitude, which is drawn for every operation
FILL = (124.0, 116.0, 104.0)  # the mean of ImageNet, for pixels outside the image
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in the luminance


def rand_augment(
    image: tf.Tensor, key: tf.Tensor, magnitude: float = 7.0, layers: int = 2, probability: float = 0.5
) -> tf.Tensor:
    """Applies randomly chosen operations one after the other.

    Args:
        image: `[height, width, 3]`, float32, 0 to 255.
        key: For `tf.random.stateless_uniform`, `[2]`, int64.
        magnitude: Mean strength of an operation, 0 to 10 (`HIGHEST`). Its standard deviation is `DEVIATION`.
        layers: Number of operations.
        probability: Probability that a chosen operation is applied.

    Returns:
        An image of the same shape, float32, 0 to 255.

    Reference:
        [RandAugment](https://arxiv.org/abs/1909.13719) (Cubuk et al., 2019).
    """
    for layer in range(layers):
        operation, sign, deviation, applied = (random_key(key, 32 + 4 * layer + i) for i in range(4))
        chosen = tf.random.stateless_uniform([], operation, 0, len(OPERATIONS), tf.int32)
        share = magnitude + DEVIATION * tf.random.stateless_normal([], deviation)
        share = tf.clip_by_value(share, 0.0, HIGHEST) / HIGHEST
        signed = tf.where(tf.random.stateless_uniform([], sign) < 0.5, -share, share)
        branches = [
            lambda image=image, share=share, signed=signed, apply=apply: apply(image, share, signed)
            for apply in OPERATIONS.values()
        ]
        changed = tf.clip_by_value(tf.round(tf.switch_case(chosen, branches)), 0, 255)
        image = tf.where(tf.random.stateless_uniform([], applied) < probability, changed, image)
    return image


def _blend(other, image, factor):
    return tf.clip_by_value(other + factor * (image - other), 0, 255)


def _grey(image):
    return tf.round(tf.tensordot(image, tf.constant(GREY), 1))[..., None]


def _transform(image, coefficients):
    """Applies an affine map of `(column, row)`, given by six numbers, with bilinear interpolation."""
    height, width = image.shape[:2]
    affine = tf.stack([tf.cast(value, tf.float32) for value in coefficients])
    transforms = tf.concat([affine, [0.0, 0.0]], axis=0)[None]
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None] - tf.constant(FILL),  # so that the fill value, zero, means FILL
        transforms=transforms,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return transformed[0] + tf.constant(FILL)


def _rotate(image, degrees):
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    across, down = ((extent - 1) / 2 for extent in (image.shape[1], image.shape[0]))
    return _transform(
        image,
        [cosine, -sine, across - cosine * across + sine * down, sine, cosine, down - sine * across - cosine * down],
    )


def _auto_contrast(image):
    low, high = tf.reduce_min(image, axis=(0, 1)), tf.reduce_max(image, axis=(0, 1))
    return tf.where(high > low, (image - low) * 255 / tf.maximum(high - low, 1), image)


def _equalize(image):
    def channel(values):
        values = tf.cast(tf.round(values), tf.int32)
        histogram = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
        last = histogram[tf.reduce_max(values)]
        step = (tf.reduce_sum(histogram) - last) // 255
        table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
        equal = tf.gather(tf.minimum(table, 255), values)
        return tf.cast(tf.where(step > 0, equal, values), tf.float32)

    return tf.stack([channel(image[..., i]) for i in range(3)], axis=-1)


def _posterize(image, share):
    """Clears the lowest 4 to 8 of the 8 bits."""
    step = tf.cast(2 ** (4 + tf.cast(share * 4, tf.int32)), tf.float32)
    return tf.floor(image / step) * step


def _sharpen(image, factor):
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]])[:, :, None, None] / 13
    smooth = tf.nn.depthwise_conv2d(image[None], tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")[0]
    height, width = image.shape[:2]
    inside = tf.pad(tf.ones([height - 2, width - 2, 1]), [(1, 1), (1, 1), (0, 0)])
    smooth = tf.pad(smooth, [(1, 1), (1, 1), (0, 0)])
    return _blend(tf.where(inside > 0, smooth, image), image, factor)


# Functions of an image, the strength as a share of the highest magnitude, and the same share with a random sign.
OPERATIONS = {
    "auto contrast": lambda image, share, signed: _auto_contrast(image),
    "equalize": lambda image, share, signed: _equalize(image),
    "invert": lambda image, share, signed: 255 - image,
    "rotate": lambda image, share, signed: _rotate(image, 30 * signed),
    "posterize": lambda image, share, signed: _posterize(image, share),
    "solarize": lambda image, share, signed: tf.where(image < 256 - tf.floor(share * 256), image, 255 - image),
    "solarize add": lambda image, share, signed: tf.where(
        image < 128, tf.minimum(image + tf.floor(share * 110), 255), image
    ),
    "color": lambda image, share, signed: _blend(_grey(image), image, 1 + 0.9 * signed),
    "contrast": lambda image, share, signed: _blend(tf.reduce_mean(_grey(image)), image, 1 + 0.9 * signed),
    "brightness": lambda image, share, signed: tf.clip_by_value(image * (1 + 0.9 * signed), 0, 255),
    "sharpness": lambda image, share, signed: _sharpen(image, 1 + 0.9 * signed),
    "shear x": lambda image, share, signed: _transform(image, [1, 0.3 * signed, 0, 0, 1, 0]),
    "shear y": lambda image, share, signed: _transform(image, [1, 0, 0, 0.3 * signed, 1, 0]),
    "translate x": lambda image, share, signed: _transform(image, [1, 0, 0.45 * signed * image.shape[1], 0, 1, 0]),
    "translate y": lambda image, share, signed: _transform(image, [1, 0, 0, 0, 1, 0.45 * signed * image.shape[0]]),
}
