# SPDX-License-Identifier: Apache-2.0
"""The base class of the layers that run on the compiled ops, whose library may have been built without XLA kernels."""

from typing import Any

import keras

from keras_dynfilter.ops import backends


class JitLayer(keras.layers.Layer):
    """Computes `supports_jit` from the implementation of its ops at the time when Keras reads the property."""

    _supports_jit = False  # Keras 3 reads the property while it constructs the layer, before assigning it

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._supports_jit = True

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile the layer. Reading it, as `Model.compile` does, may load the compiled ops."""
        return self._supports_jit and (not self.uses_compiled_ops() or backends.supports_jit())

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        self._supports_jit = value

    def uses_compiled_ops(self) -> bool:
        """Returns whether calls may run on the compiled ops. If not, `supports_jit` does not load the library."""
        return True
