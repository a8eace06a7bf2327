# SPDX-License-Identifier: Apache-2.0
"""Convolution with filters that are mixed, per sample, from a repository of base filters."""

import math

import keras
import tensorflow as tf

from keras_dynfilter.layers import repository_algorithms
from keras_dynfilter.layers.filter_repository import FilterRepository
from keras_dynfilter.layers.jit_layer import JitLayer
from keras_dynfilter.layers.many_output_dense import WideDense
from keras_dynfilter.ops.checks import choice, positive
from keras_dynfilter.ops.geometry import Geometry
from keras_dynfilter.ops.layout import standardize_data_format, to_channels_first, to_channels_last


@keras.saving.register_keras_serializable("keras_dynfilter")
class RepositoryConv2D(JitLayer):
    """Convolution whose filters are generated for each sample, from features of the sample and shared base filters.

        coefficients = Dense(base_filters * filters)(features)
        filters      = FilterRepository(...)(coefficients)
        outputs      = dynamic_conv2d(inputs, filters)

    A convolution is linear in its filters. So the layer may as well convolve all samples with the base filters, which
    is one ordinary convolution, and mix the maps of each sample with its coefficients: `path="shared"`. Outputs and
    gradients are the same up to rounding. That path knows no filters per sample, takes memory for `base_filters` maps,
    and the time of a convolution and of the mixing. What makes the coefficients may take as long again: it has
    `base_filters * filters` outputs.

    Features need not come from the image that is filtered: with those of another image, it gets that one's filters.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Positive integer or pair `(kernel_h, kernel_w)`.
        base_filters: Positive integer, the number of base filters. None: as many as `filters`.
        strides: Positive integer or pair.
        padding: `"same"`: zeros on both sides alike (even windows: one more at the end), windows centred on input
            `i * strides`; or `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`; None: `keras.backend.image_data_format()`.
        dilation_rate: Positive integer or pair, the distance of neighbouring taps in pixels.
        path: `"shared"`: convolve with the base filters, then mix; `"direct"`: mix the filters, then convolve each
            sample with its own; or `"auto"`: what costs less by the number of operations and of values in memory, and
            `"shared"` if in doubt. `used_path` tells. Batches and outputs take the direct path, too, if they are known
            to be empty when the layer is called or traced.
        activation: Of the outputs; None: none.
        use_bias: Whether to add a trained bias per output channel, the same for all samples.
        dynamic_bias: None, or `"after"`: a bias per sample and output channel, generated from the features as well, is
            added to the outputs.
        repository_initializer: Initializer of the base filters, as in `FilterRepository`.
        coefficients_initializer: Initializer of the kernel that makes coefficients of features. None: normal, with
            variance `1 / (features * min(base_filters, kernel_h * kernel_w * channels))`.
        coefficients_bias_initializer: Initializer of its bias, the coefficients that all samples share. None: normal,
            with variance `1 / min(base_filters, kernel_h * kernel_w * channels)`. With both, and features of mean
            square 1, filters start with a squared norm of 2, as for He's initialisation: one half is common to all
            samples, the other one the sample's own.
        bias_initializer: Initializer of the trained bias.
        repository_regularizer: Regularizer of the base filters.
        coefficients_regularizer: Regularizer of the kernel that makes coefficients of features.
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
        ValueError: An argument is not as described, or the inputs have another shape.

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
        filters,
        kernel_size,
        base_filters=None,
        strides=(1, 1),
        padding="same",
        data_format=None,
        dilation_rate=(1, 1),
        path="auto",
        activation=None,
        use_bias=False,
        dynamic_bias=None,
        repository_initializer="orthogonal",
        coefficients_initializer=None,
        coefficients_bias_initializer=None,
        bias_initializer="zeros",
        repository_regularizer=None,
        coefficients_regularizer=None,
        bias_regularizer=None,
        repository_constraint=None,
        **kwargs,
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
        self.convolution_path = choice(
            path, "path", repository_algorithms.PATHS
        )  # `path` is a property of Keras layers
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
        self._filters_of_one_channel = self.convolution_path == "direct"  # it may be, until it is built

    def build(self, input_shape):
        images_shape, (_, features) = self._check_shapes(input_shape)
        channels = images_shape[-1]
        self._filters_of_one_channel = self.used_path(input_shape[0]) == "direct" and 1 in (channels, self.filters)
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
        if self.dynamic_bias:  # starts as no bias
            self.bias_generator = self._dense("dynamic_bias", self.filters, features, "zeros", "zeros")
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )
        axis = 1 if self.data_format == "channels_first" else -1
        image, vector = (
            keras.layers.InputSpec(ndim=4, axes={axis: channels}),
            keras.layers.InputSpec(ndim=2, axes={-1: features}),
        )
        self.input_spec = [image, vector]
        super().build(input_shape)

    def call(self, inputs):
        images, features = (tf.cast(each, self.compute_dtype) for each in inputs)  # integers too, which Keras leaves
        self._check_shapes([images.shape, features.shape])
        path = self.used_path(images.shape)
        if self.data_format == "channels_first":
            images = to_channels_last(images)
        convolve = repository_algorithms.shared if path == "shared" else repository_algorithms.direct
        bank = tf.cast(self.repository.repository, images.dtype)
        outputs = convolve(images, bank, self.coefficients(features), self.geometry)
        if self.bias_generator is not None:
            outputs = outputs + tf.reshape(self.bias_generator(features), [-1, 1, 1, self.filters])
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        outputs = self.activation(outputs)
        return to_channels_first(outputs) if self.data_format == "channels_first" else outputs

    def coefficients(self, features):
        """Coefficients of the samples with these `features` `[batch, features]`: `[batch, base_filters, filters]`.

        Raises:
            ValueError: The layer is not built: it has neither been called nor been told shapes by `build`.
        """
        if not self.built:
            raise ValueError(
                f"Expected a layer that was called or built before. Received: {self.name!r}, which was not"
            )
        features = tf.cast(features, self.compute_dtype)
        return tf.reshape(self.generator(features), [-1, self.base_filters, self.filters])

    def generated_filters(self, features):
        """Filters of the samples with these `features`: `[batch, kernel_h, kernel_w, channels, filters]`.

        Raises:
            ValueError: The layer is not built.
        """
        return self.repository(self.coefficients(features))

    def used_path(self, images_shape):
        """The path of images of this shape (in the order of `data_format`; None: open), `"shared"` or `"direct"`."""
        batch, *_, channels = images_shape = self._channels_last(images_shape)
        size = self.geometry.output_shape(images_shape)
        if batch == 0 or 0 in size:
            return "direct"  # TensorFlow's convolution to nothing fails on CPUs, and a dilated one of nothing
        if self.convolution_path != "auto":
            return self.convolution_path
        positions = None if None in size else math.prod(size)
        return repository_algorithms.cheaper_path(positions, self.geometry, channels, self.base_filters, self.filters)

    def compute_output_shape(self, input_shape):
        images_shape, _ = self._check_shapes(input_shape)
        batch, size = images_shape[0], self.geometry.output_shape(images_shape)
        return (batch, self.filters, *size) if self.data_format == "channels_first" else (batch, *size, self.filters)

    def get_config(self):
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
                "path": self.convolution_path,
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

    def _runs_on_ops(self):
        """On the direct path `dynamic_conv2d` does, with filters of a single channel in or out. The rest is
        TensorFlow's."""
        return self._filters_of_one_channel

    def _dense(self, name, units, features, kernel_initializer, bias_initializer, kernel_regularizer=None):
        dense = WideDense(
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
        """Shapes of the image, in channels-last order, and of the features, unless they are not as described."""
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
        if self.data_format == "channels_last":
            return tuple(image_shape)
        batch, channels, *size = image_shape
        return batch, *size, channels
