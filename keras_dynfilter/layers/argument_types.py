# SPDX-License-Identifier: Apache-2.0
"""Types of shapes and of constructor arguments that several layers share, and functions of shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Size = int | tuple[int, int] | list[int]
Shape = tuple[int | None, ...]
Shapes = Shape | list[Shape]  # of one input, or of each input
ImageShape = tuple[int | None, int | None, int | None, int]  # channels-last, with a known number of channels
Tensors = tf.Tensor | Sequence[tf.Tensor]  # one input, or several
Initializer = str | dict[str, Any] | keras.initializers.Initializer | None
Regularizer = str | dict[str, Any] | keras.regularizers.Regularizer | None
Constraint = str | dict[str, Any] | keras.constraints.Constraint | None
Activation = str | dict[str, Any] | Callable[..., Any] | None


def list_of_shapes(input_shape: Any) -> list[Shape]:
    """Returns the shapes of the inputs as a list, whether `input_shape` is one shape or a list of shapes."""
    nested = isinstance(input_shape[0], (list, tuple, tf.TensorShape))
    return [tuple(shape) for shape in (input_shape if nested else [input_shape])]


def known_output_shape(layer: keras.layers.Layer, input_shape: Any) -> Any:
    """Returns the shape of the outputs of a layer; None if the layer does not compute it, as Keras 3 allows."""
    try:
        return layer.compute_output_shape(input_shape)
    except NotImplementedError:
        return None
