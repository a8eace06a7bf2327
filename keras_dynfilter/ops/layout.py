# SPDX-License-Identifier: Apache-2.0
"""Converts between channels-last and channels-first tensors and reads static sizes."""

import keras
import tensorflow as tf

from keras_dynfilter.ops.checks import choice

DATA_FORMATS = ("channels_last", "channels_first")


def standardize_data_format(data_format):
    """Returns `data_format`, that of Keras for None."""
    data_format = keras.backend.image_data_format() if data_format is None else data_format
    return choice(data_format, "data_format", DATA_FORMATS)


def to_channels_last(value):
    return tf.transpose(value, [0, 2, 3, 1])


def to_channels_first(value):
    return tf.transpose(value, [0, 3, 1, 2])


def sizes(value, rank):
    """The static shape of `value` as a list of `rank` sizes, None where unknown."""
    return [None] * rank if value.shape.rank is None else value.shape.as_list()
