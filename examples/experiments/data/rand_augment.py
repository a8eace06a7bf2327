# SPDX-License-Identifier: Apache-2.0
"""RandAugment in the setting of the DDF networks: more of an operation, the larger the magnitude."""

import math

import tensorflow as tf

from examples.experiments.data.step_datasets import draws

HIGHEST = 10.0
DEVIATION = 0.5  # of the magnitude of an image
FILL = (124.0, 116.0, 104.0)  # the mean of ImageNet, for what comes into the image from outside
GREY = (0.299, 0.587, 0.114)


def rand_augment(image, key, magnitude=7.0, layers=2, probability=0.5):
    """Applies operations that are chosen at random, one after the other.

    Args:
        image: `[height, width, 3]`, float32, 0 to 255.
        key: For `tf.random.stateless_uniform`, `[2]`, int64.
        magnitude: How much, 0 to 10 (`HIGHEST`); of each operation it deviates by `DEVIATION`.
        layers: Number of operations.
        probability: That one of them takes place.

    Returns:
        The same shape, float32, 0 to 255.

    Reference:
        [RandAugment](https://arxiv.org/abs/1909.13719) (Cubuk et al., 2019).
    """
    for layer in range(layers):
        kind, sign, deviation, takes_place = (draws(key, 32 + 4 * layer + i) for i in range(4))
        chosen = tf.random.stateless_uniform([], kind, 0, len(OPERATIONS), tf.int32)
        share = magnitude + DEVIATION * tf.random.stateless_normal([], deviation)
        share = tf.clip_by_value(share, 0.0, HIGHEST) / HIGHEST
        signed = tf.where(tf.random.stateless_uniform([], sign) < 0.5, -share, share)
        branches = [
            lambda image=image, share=share, signed=signed, apply=apply: apply(image, share, signed)
            for apply in OPERATIONS.values()
        ]
        changed = tf.clip_by_value(tf.round(tf.switch_case(chosen, branches)), 0, 255)
        image = tf.where(tf.random.stateless_uniform([], takes_place) < probability, changed, image)
    return image


def _blend(other, image, factor):
    return tf.clip_by_value(other + factor * (image - other), 0, 255)


def _grey(image):
    return tf.round(tf.tensordot(image, tf.constant(GREY), 1))[..., None]


def _moved(image, rows):
    """The image under the map of `(column, row)` by the six values `rows`, between pixels by linear interpolation."""
    height, width = image.shape[:2]
    transforms = tf.concat([tf.stack([tf.cast(value, tf.float32) for value in rows]), [0.0, 0.0]], axis=0)[None]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None] - tf.constant(FILL),  # what comes from outside is zero
        transforms=transforms,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return moved[0] + tf.constant(FILL)


def _rotated(image, degrees):
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    across, down = ((extent - 1) / 2 for extent in (image.shape[1], image.shape[0]))
    return _moved(
        image,
        [cosine, -sine, across - cosine * across + sine * down, sine, cosine, down - sine * across - cosine * down],
    )


def _auto_contrast(image):
    low, high = tf.reduce_min(image, axis=(0, 1)), tf.reduce_max(image, axis=(0, 1))
    return tf.where(high > low, (image - low) * 255 / tf.maximum(high - low, 1), image)


def _equalized(image):
    def channel(values):
        values = tf.cast(tf.round(values), tf.int32)
        histogram = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
        last = histogram[tf.reduce_max(values)]
        step = (tf.reduce_sum(histogram) - last) // 255
        table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
        equal = tf.gather(tf.minimum(table, 255), values)
        return tf.cast(tf.where(step > 0, equal, values), tf.float32)

    return tf.stack([channel(image[..., i]) for i in range(3)], axis=-1)


def _posterized(image, share):
    """As many of 8 bits as are left when up to 4 are taken from 4."""
    lost = tf.cast(2 ** (4 + tf.cast(share * 4, tf.int32)), tf.float32)
    return tf.floor(image / lost) * lost


def _sharpened(image, factor):
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]])[:, :, None, None] / 13
    smooth = tf.nn.depthwise_conv2d(image[None], tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")[0]
    height, width = image.shape[:2]
    inside = tf.pad(tf.ones([height - 2, width - 2, 1]), [(1, 1), (1, 1), (0, 0)])
    smooth = tf.pad(smooth, [(1, 1), (1, 1), (0, 0)])
    return _blend(tf.where(inside > 0, smooth, image), image, factor)


# Functions of an image, the share of the highest magnitude, and the same with a random sign.
OPERATIONS = {
    "auto contrast": lambda image, share, signed: _auto_contrast(image),
    "equalize": lambda image, share, signed: _equalized(image),
    "invert": lambda image, share, signed: 255 - image,
    "rotate": lambda image, share, signed: _rotated(image, 30 * signed),
    "posterize": lambda image, share, signed: _posterized(image, share),
    "solarize": lambda image, share, signed: tf.where(image < 256 - tf.floor(share * 256), image, 255 - image),
    "solarize add": lambda image, share, signed: tf.where(
        image < 128, tf.minimum(image + tf.floor(share * 110), 255), image
    ),
    "color": lambda image, share, signed: _blend(_grey(image), image, 1 + 0.9 * signed),
    "contrast": lambda image, share, signed: _blend(tf.reduce_mean(_grey(image)), image, 1 + 0.9 * signed),
    "brightness": lambda image, share, signed: tf.clip_by_value(image * (1 + 0.9 * signed), 0, 255),
    "sharpness": lambda image, share, signed: _sharpened(image, 1 + 0.9 * signed),
    "shear x": lambda image, share, signed: _moved(image, [1, 0.3 * signed, 0, 0, 1, 0]),
    "shear y": lambda image, share, signed: _moved(image, [1, 0, 0, 0.3 * signed, 1, 0]),
    "translate x": lambda image, share, signed: _moved(image, [1, 0, 0.45 * signed * image.shape[1], 0, 1, 0]),
    "translate y": lambda image, share, signed: _moved(image, [1, 0, 0, 0, 1, 0.45 * signed * image.shape[0]]),
}
