# SPDX-License-Identifier: Apache-2.0
"""Types of the constructor arguments that several layers take, and of shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

Size = int | tuple[int, int] | list[int]
Shape = tuple[int | None, ...]
Shapes = Sequence[int | None] | Sequence[Sequence[int | None]]
Initializer = str | dict[str, Any] | keras.initializers.Initializer | None
Regularizer = str | dict[str, Any] | keras.regularizers.Regularizer | None
Constraint = str | dict[str, Any] | keras.constraints.Constraint | None
Activation = str | dict[str, Any] | Callable[..., Any] | None


def list_of_shapes(input_shape: Shapes) -> list[Shape]:
    """Returns the `input_shape` that Keras passes to a layer, of one tensor or of a list of them, as a list."""
    first = input_shape[0]
    nested = first is not None and not isinstance(first, int)
    return [tuple(shape) for shape in (input_shape if nested else [input_shape])]
