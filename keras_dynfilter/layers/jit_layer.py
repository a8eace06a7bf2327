# SPDX-License-Identifier: Apache-2.0
"""The base of the layers that run on the compiled ops, which XLA may or may not be able to compile."""

import keras

from keras_dynfilter.ops import backends


class JitLayer(keras.layers.Layer):
    """Answers Keras's question `supports_jit` from the implementation that its ops run on when it is asked."""

    _supports_jit = False  # read by Keras 3 while it constructs the layer, before it assigns the property

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._supports_jit = True

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile the layer. Keras asks when it compiles a model, which may load the compiled ops."""
        return self._supports_jit and (not self._runs_on_ops() or backends.supports_jit())

    @supports_jit.setter
    def supports_jit(self, value):
        self._supports_jit = value

    def _runs_on_ops(self):
        """Whether calls may run on the compiled ops. If not, the library is not loaded to answer."""
        return True
