# SPDX-License-Identifier: Apache-2.0
"""Makes the layers that normalise generated filters, from a name or from a Keras layer."""

import dataclasses
from typing import Any

import keras

from keras_dynfilter.layers.filter_norm import FilterNorm

NORMS = ("filter", "batch", "sigmoid", None)


@dataclasses.dataclass(frozen=True)
class NormTemplate:
    """Holds the argument `spatial_norm` or `channel_norm` of a layer and makes normalisation layers from it.

    Attributes:
        argument: `"filter"`, `"batch"`, `"sigmoid"`, None, or a Keras layer. The template keeps a copy of a layer, and
            `make` copies the copy. One object can therefore serve several layers of a network and have other uses.
        kind: `"spatial"` or `"channel"`.
        kernel_size: Pair, the window of the filters.
        gain: The gain of the `FilterNorm` that `"filter"` makes.

    Raises:
        ValueError: `argument` is not one of these, is a layer that already has weights or cannot be copied, or is a
            `FilterNorm` of another kind or window.
    """

    argument: Any
    kind: str
    kernel_size: tuple[int, int]
    gain: str | float

    def __post_init__(self):
        name, norm = f"{self.kind}_norm", self.argument
        if not isinstance(norm, keras.layers.Layer):
            if norm is not None and not (isinstance(norm, str) and norm in NORMS):
                expected = f"Expected `{name}` to be one of {', '.join(map(repr, NORMS))}, or a Keras layer"
                raise ValueError(f"{expected}. Received: {name}={norm!r}")
            return
        if norm.built and norm.weights:
            expected = f"Expected `{name}` to be a layer without weights yet, as it is copied"
            raise ValueError(f"{expected}. Received: {name}={norm.name!r}, which has {len(norm.weights)} weights")
        if isinstance(norm, FilterNorm) and (norm.kind, norm.kernel_size) != (self.kind, self.kernel_size):
            expected = f"Expected `{name}` to be of kind {self.kind!r} and kernel_size {self.kernel_size}"
            raise ValueError(f"{expected}. Received: FilterNorm({norm.kind!r}, {norm.kernel_size})")
        # Without a copy, `get_config` would also save the weights' shapes if the caller builds the layer later.
        object.__setattr__(self, "argument", self._copy())

    def make(self, dtype: Any) -> keras.layers.Layer:
        """Returns a new normalisation layer with the dtype policy `dtype`, for filters in the channels-last layout."""
        name = f"{self.kind}_norm"
        if isinstance(self.argument, keras.layers.Layer):
            layout = {"data_format": "channels_last"} if isinstance(self.argument, FilterNorm) else {}
            return self._copy(name=name, dtype=dtype, **layout)
        if self.argument == "filter":
            return FilterNorm(
                self.kind, self.kernel_size, self.gain, data_format="channels_last", name=name, dtype=dtype
            )
        if self.argument == "batch":
            return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, dtype=dtype)
        return keras.layers.Activation(self.argument or "linear", name=name, dtype=dtype)

    def _copy(self, **changes: Any) -> keras.layers.Layer:
        """Returns a copy of the layer `argument` with changes in its configuration."""
        norm = self.argument
        try:
            return type(norm).from_config({**norm.get_config(), **changes})
        except Exception as error:  # of any type, as it depends on the layer's own code
            expected = (
                f"Expected `{self.kind}_norm` to be a layer that `get_config` and `from_config` can copy with another "
                "`name` and `dtype`"
            )
            received = f"{type(norm).__name__}, which raised {type(error).__name__}: {error}"
            raise ValueError(f"{expected}. Received: {received}") from error

    def get_config(self) -> str | dict[str, Any] | None:
        """Returns the argument as Keras saves it."""
        if isinstance(self.argument, keras.layers.Layer):
            return keras.saving.serialize_keras_object(self.argument)
        return self.argument
