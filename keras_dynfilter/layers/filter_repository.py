# SPDX-License-Identifier: Apache-2.0
"""A repository of base filters, from which the filters of each sample are mixed."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import repository_algorithms
from keras_dynfilter.layers.argument_types import Constraint, Initializer, Regularizer, Shape, Size
from keras_dynfilter.layers.initializers import drawn_in_float32
from keras_dynfilter.ops.checks import pair, positive


@keras.saving.register_keras_serializable("keras_dynfilter")
class FilterRepository(keras.layers.Layer):
    """Mixes the filters of each sample from base filters that all samples share.

        filters[n,u,v,c,f] = sum_m base_filters[u,v,c,m] * coefficients[n,m,f]

    The base filters are the weights of the layer. A network then generates `base_filters` values for each filter
    instead of `kernel_h * kernel_w * channels`. `RepositoryConv2D` convolves with such filters, in most cases without
    computing them. This layer computes them, for `DynamicConv2D` or for inspection.

    Args:
        filters: Positive integer, the number of filters of a sample.
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`.
        channels: Positive integer, the number of channels of the images to be filtered.
        base_filters: Positive integer, the number of base filters. None: as many as `filters`.
        repository_initializer: Initializer of the base filters. `"orthogonal"` makes them orthonormal. If there are
            more base filters than values in a filter, it makes the rows of the matrix `[values, base_filters]`
            orthonormal.
        repository_regularizer: Regularizer of the base filters.
        repository_constraint: Constraint of the base filters.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Coefficients, `(batch, base_filters, filters)`, or flattened in this order, `(batch, base_filters * filters)`.

    Output shape:
        `(batch, kernel_h, kernel_w, channels, filters)`, in the order of Keras kernels.

    Raises:
        ValueError: An argument or the shape of the coefficients is not as described.

    Example:

    >>> layer = FilterRepository(filters=128, kernel_size=3, channels=64, base_filters=32)
    >>> layer(np.ones((2, 32, 128))).shape, layer.count_params()
    (TensorShape([2, 3, 3, 64, 128]), 18432)

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        channels: int,
        base_filters: int | None = None,
        repository_initializer: Initializer = "orthogonal",
        repository_regularizer: Regularizer = None,
        repository_constraint: Constraint = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = positive(filters, "filters")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.channels = positive(channels, "channels")
        self.base_filters = self.filters if base_filters is None else positive(base_filters, "base_filters")
        self.repository_initializer = keras.initializers.get(repository_initializer)
        self.repository_regularizer = keras.regularizers.get(repository_regularizer)
        self.repository_constraint = keras.constraints.get(repository_constraint)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        self.repository = self.add_weight(
            name="repository",
            shape=(*self.kernel_size, self.channels, self.base_filters),
            initializer=drawn_in_float32(self.repository_initializer),
            regularizer=self.repository_regularizer,
            constraint=self.repository_constraint,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.compute_output_shape(inputs.shape)  # the reshape would accept other shapes of equal size
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        coefficients = tf.reshape(inputs, [-1, self.base_filters, self.filters])
        return repository_algorithms.mixed(tf.cast(self.repository, inputs.dtype), coefficients)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = tf.TensorShape(input_shape)
        allowed = (self.base_filters, self.filters), (self.base_filters * self.filters,)
        if not any(shape[1:].is_compatible_with(option) for option in allowed):
            expected = " or ".join(str((None, *option)) for option in allowed)
            raise ValueError(f"Expected `inputs` to have shape {expected}. Received: inputs.shape={tuple(shape)}")
        return shape[0], *self.kernel_size, self.channels, self.filters

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "filters": self.filters,
                "kernel_size": self.kernel_size,
                "channels": self.channels,
                "base_filters": self.base_filters,
                "repository_initializer": keras.initializers.serialize(self.repository_initializer),
                "repository_regularizer": keras.regularizers.serialize(self.repository_regularizer),
                "repository_constraint": keras.constraints.serialize(self.repository_constraint),
            }
        )
        return config
