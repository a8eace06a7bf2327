# SPDX-License-Identifier: Apache-2.0
"""Convolution with filters that are mixed for each sample from a repository of base filters."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import repository_algorithms
from keras_dynfilter.layers.argument_types import Activation, Constraint, Initializer, Regularizer, Shape, Size
from keras_dynfilter.layers.filter_repository import FilterRepository
from keras_dynfilter.layers.generator_dense import ManyOutputDense
from keras_dynfilter.ops.backends.jit_layer import JitLayer
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import (
    shape_to_channels_first,
    shape_to_channels_last,
    standardize_data_format,
    to_channels_first,
    to_channels_last,
)


@keras.saving.register_keras_serializable("keras_dynfilter")
class RepositoryConv2D(JitLayer):
    """Convolves each sample with filters that are mixed from shared base filters by coefficients from features.

        coefficients = Dense(base_filters * filters)(features)
        filters      = FilterRepository(...)(coefficients)
        outputs      = dynamic_conv2d(inputs, filters)

    A convolution is linear in its filters. With `algorithm="shared"`, the layer therefore convolves all samples with
    the base filters, in one ordinary convolution, and mixes the resulting maps of each sample with its coefficients.
    Outputs and gradients are equal up to rounding. This algorithm never computes filters per sample. It needs memory
    for `base_filters` maps, and time for a convolution and the mixing. The Dense layer may take as much time again,
    because it has `base_filters * filters` outputs.

    The features may come from another image. The layer then filters one image with the filters of the other image.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`.
        base_filters: Positive integer, the number of base filters. None: as many as `filters`.
        strides: Positive integer or pair.
        padding: `"same"`: the same number of zeros on both sides (for even windows one more at the end), and windows
            centred on input `i * strides`; or `"valid"`: no padding.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance between neighbouring taps in pixels.
        algorithm: `"shared"`: convolve with the base filters, then mix the maps; `"per_sample"`: mix the filters, then
            convolve each sample with its own filters; or `"auto"`: the algorithm with the lower estimated cost, from
            the numbers of operations and of intermediate values. Images of unknown size count as very large.
            `chosen_algorithm` returns the decision. Batches and outputs that are known to be empty always use
            `"per_sample"`.
        activation: Activation of the outputs. None: no activation.
        use_bias: Whether to add a trained bias per output channel, the same for all samples.
        dynamic_bias: None, or `"after"` to add a bias per sample and output channel, which a second Dense layer
            generates from the features.
        repository_initializer: Initializer of the base filters, as in `FilterRepository`.
        coefficients_initializer: Initializer of the kernel of the Dense layer. None: normal with variance
            `1 / (features * min(base_filters, kernel_h * kernel_w * channels))`.
        coefficients_bias_initializer: Initializer of the bias of the Dense layer, which is the part of the coefficients
            that all samples share. None: normal with variance `1 / min(base_filters, kernel_h * kernel_w * channels)`.
            With both defaults and features of mean square 1, the filters start with a mean squared norm of 2, as in
            He's initialization: half of it from the shared part, half from the part of each sample.
        bias_initializer: Initializer of the trained bias.
        repository_regularizer: Regularizer of the base filters.
        coefficients_regularizer: Regularizer of the kernel of the Dense layer.
        bias_regularizer: Regularizer of the trained bias.
        repository_constraint: Constraint of the base filters.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the image and its features.

        - Image: `(batch, height, width, channels)` if `data_format="channels_last"`,
          `(batch, channels, height, width)` if `data_format="channels_first"`.
        - Features: `(batch, features)`.

    Output shape:
        - `(batch, out_height, out_width, filters)` if `data_format="channels_last"`.
        - `(batch, filters, out_height, out_width)` if `data_format="channels_first"`.

    Raises:
        ValueError: An argument or the shape of the inputs is not as described.

    Example:

    >>> layer = RepositoryConv2D(128, 3, base_filters=32, strides=2)
    >>> image, features = np.ones((4, 16, 16, 64)), np.ones((4, 96))
    >>> layer([image, features]).shape
    TensorShape([4, 8, 8, 128])
    >>> layer.coefficients(features).shape, layer.generated_filters(features).shape
    (TensorShape([4, 32, 128]), TensorShape([4, 3, 3, 64, 128]))

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        base_filters: int | None = None,
        strides: Size = (1, 1),
        padding: str = "same",
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        algorithm: str = "auto",
        activation: Activation = None,
        use_bias: bool = False,
        dynamic_bias: str | None = None,
        repository_initializer: Initializer = "orthogonal",
        coefficients_initializer: Initializer = None,
        coefficients_bias_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        repository_regularizer: Regularizer = None,
        coefficients_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        repository_constraint: Constraint = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = positive(filters, "filters")
        self.geometry = Geometry.make(kernel_size, strides, dilation_rate, padding, even=True)
        self.kernel_size = self.geometry.kernel_size
        self.base_filters = self.filters if base_filters is None else positive(base_filters, "base_filters")
        self.strides = self.geometry.strides
        self.padding = self.geometry.padding
        self.data_format = standardize_data_format(data_format)
        self.dilation_rate = self.geometry.dilation_rate
        self.algorithm = choice(algorithm, "algorithm", repository_algorithms.ALGORITHMS)
        self.activation = keras.activations.get(activation)
        self.use_bias = bool(choice(use_bias, "use_bias", (False, True)))
        self.dynamic_bias = choice(dynamic_bias, "dynamic_bias", (None, "after"))
        self.repository_initializer = keras.initializers.get(repository_initializer)
        self.coefficients_initializer = keras.initializers.get(coefficients_initializer)
        self.coefficients_bias_initializer = keras.initializers.get(coefficients_bias_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.repository_regularizer = keras.regularizers.get(repository_regularizer)
        self.coefficients_regularizer = keras.regularizers.get(coefficients_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.repository_constraint = keras.constraints.get(repository_constraint)
        self._filters_of_one_channel = self.algorithm == "per_sample"  # possible until the layer is built

    def build(self, input_shape: list[Shape]) -> None:
        images_shape, (_, features) = self._check_shapes(input_shape)
        channels = images_shape[-1]
        self._filters_of_one_channel = self.chosen_algorithm(input_shape[0]) == "per_sample" and 1 in (
            channels,
            self.filters,
        )
        depth = self.geometry.taps * channels
        norm = min(self.base_filters, depth)  # the sum of the squares of orthonormal base filters
        self.repository = FilterRepository(
            self.filters,
            self.kernel_size,
            channels,
            self.base_filters,
            self.repository_initializer,
            self.repository_regularizer,
            self.repository_constraint,
            name="repository",
            dtype=self.dtype_policy,
        )
        self.repository.build((None, self.base_filters, self.filters))
        self.generator = self._dense(
            "coefficients",
            self.base_filters * self.filters,
            features,
            self.coefficients_initializer or keras.initializers.RandomNormal(0.0, 1 / math.sqrt(norm * features)),
            self.coefficients_bias_initializer or keras.initializers.RandomNormal(0.0, 1 / math.sqrt(norm)),
            self.coefficients_regularizer,
        )
        self.bias_generator = self.bias = None
        if self.dynamic_bias:  # starts at zero
            self.bias_generator = self._dense("dynamic_bias", self.filters, features, "zeros", "zeros")
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )
        axis = 1 if self.data_format == "channels_first" else -1
        self.input_spec = [
            keras.layers.InputSpec(ndim=4, axes={axis: channels}),
            keras.layers.InputSpec(ndim=2, axes={-1: features}),
        ]
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        images, features = (tf.cast(value, self.compute_dtype) for value in inputs)  # Keras does not cast integers
        self._check_shapes([images.shape, features.shape])
        algorithm = self.chosen_algorithm(images.shape)
        if self.data_format == "channels_first":
            images = to_channels_last(images)
        convolve = repository_algorithms.shared if algorithm == "shared" else repository_algorithms.per_sample
        bank = tf.cast(self.repository.repository, images.dtype)
        outputs = convolve(images, bank, self.coefficients(features), self.geometry)
        if self.bias_generator is not None:
            outputs = outputs + tf.reshape(self.bias_generator(features), [-1, 1, 1, self.filters])
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        outputs = self.activation(outputs)
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def coefficients(self, features: tf.Tensor) -> tf.Tensor:
        """Computes the coefficients of samples from their features.

        Args:
            features: `[batch, features]`.

        Returns:
            `[batch, base_filters, filters]`.

        Raises:
            ValueError: The layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"Expected a layer that was called or built before. Received: {self.name!r}, which was not"
            )
        features = tf.cast(features, self.compute_dtype)
        return tf.reshape(self.generator(features), [-1, self.base_filters, self.filters])

    def generated_filters(self, features: tf.Tensor) -> tf.Tensor:
        """Computes the filters of samples from their features.

        Args:
            features: `[batch, features]`.

        Returns:
            `[batch, kernel_h, kernel_w, channels, filters]`.

        Raises:
            ValueError: The layer is not built.
        """
        coefficients = self.coefficients(features)  # raises the error if the layer has no repository yet
        return self.repository(coefficients)

    def chosen_algorithm(self, images_shape: Shape) -> str:
        """Returns the algorithm for images of this shape: `"shared"` or `"per_sample"`.

        Args:
            images_shape: Shape of the images in the order of `data_format`, with None for unknown sizes.

        Raises:
            ValueError: `images_shape` does not have rank 4, or the number of channels is unknown.
        """
        if not hasattr(images_shape, "__len__") or len(images_shape) != 4:
            expected = f"Expected `images_shape` to have rank 4 ({self.data_format})"
            raise ValueError(f"{expected}. Received: {images_shape=}")
        batch, *_, channels = images_shape = self._channels_last(images_shape)
        if channels is None:
            expected = "Expected `images_shape` to have a known number of channels"
            raise ValueError(f"{expected}. Received: {images_shape=}, in channels-last order")
        size = self.geometry.output_shape(images_shape)
        if batch == 0 or 0 in size:
            return "per_sample"  # on CPUs, tf.nn.conv2d fails for empty outputs, and with dilation for empty batches
        if self.algorithm != "auto":
            return self.algorithm
        positions = None if None in size else math.prod(size)
        return repository_algorithms.cheaper_algorithm(
            positions, self.geometry, channels, self.base_filters, self.filters
        )

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        images_shape, _ = self._check_shapes(input_shape)
        shape = images_shape[0], *self.geometry.output_shape(images_shape), self.filters
        return shape_to_channels_first(shape) if self.data_format == "channels_first" else shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "filters": self.filters,
                "kernel_size": self.kernel_size,
                "base_filters": self.base_filters,
                "strides": self.strides,
                "padding": self.padding,
                "data_format": self.data_format,
                "dilation_rate": self.dilation_rate,
                "algorithm": self.algorithm,
                "activation": keras.activations.serialize(self.activation),
                "use_bias": self.use_bias,
                "dynamic_bias": self.dynamic_bias,
                "repository_initializer": keras.initializers.serialize(self.repository_initializer),
                "coefficients_initializer": keras.initializers.serialize(self.coefficients_initializer),
                "coefficients_bias_initializer": keras.initializers.serialize(self.coefficients_bias_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
                "repository_regularizer": keras.regularizers.serialize(self.repository_regularizer),
                "coefficients_regularizer": keras.regularizers.serialize(self.coefficients_regularizer),
                "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
                "repository_constraint": keras.constraints.serialize(self.repository_constraint),
            }
        )
        return config

    def uses_compiled_ops(self) -> bool:
        # `"per_sample"` calls `dynamic_conv2d`, which uses the compiled ops for a single input or output channel only.
        return self._filters_of_one_channel

    def _dense(self, name, units, features, kernel_initializer, bias_initializer, kernel_regularizer=None):
        dense = ManyOutputDense(
            units,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build((None, features))
        return dense

    def _check_shapes(self, input_shape):
        """Checks the shapes and returns the image's shape in channels-last order and the shape of the features."""
        if len(input_shape) != 2 or not all(hasattr(shape, "__len__") for shape in input_shape):
            raise ValueError(f"Expected `inputs` to be a list [image, features]. Received: shape={tuple(input_shape)}")
        image, features = (tuple(shape) for shape in input_shape)
        if len(image) != 4:
            raise ValueError(f"Expected the image to have rank 4 ({self.data_format}). Received: image.shape={image}")
        if self._channels_last(image)[-1] is None:
            raise ValueError(f"Expected the image to have a known number of channels. Received: image.shape={image}")
        if len(features) != 2 or features[-1] is None:
            expected = "Expected the features to have shape (batch, features), with a known number of features"
            raise ValueError(f"{expected}. Received: features.shape={features}")
        if None not in (image[0], features[0]) and image[0] != features[0]:
            received = f"{features[0]} feature vectors, {image[0]} images"
            raise ValueError(f"Expected as many feature vectors as images. Received: {received}")
        return self._channels_last(image), features

    def _channels_last(self, image_shape):
        first = self.data_format == "channels_first"
        return shape_to_channels_last(image_shape) if first else tuple(image_shape)
