# SPDX-License-Identifier: Apache-2.0
"""What layers say about XLA while the ops they call may, or may not, have kernels for it."""

import keras

from keras_dynfilter.ops.backends import library


class JitLayer(keras.layers.Layer):
    """A layer whose `supports_jit` asks the library of compiled ops, at the time when it is read."""

    _supports_jit = False  # while Keras 3 constructs the layer: it reads the property before assigning it

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._supports_jit = True

    @property
    def supports_jit(self):
        """Whether XLA can compile the layer. Asked for when a model is compiled, as it may load the native library."""
        return self._supports_jit and (not self._runs_on_ops() or library.supports_jit())

    @supports_jit.setter
    def supports_jit(self, value):
        self._supports_jit = value

    def _runs_on_ops(self):
        """Whether calls may run on the compiled ops; if not, the library is not asked."""
        return True
