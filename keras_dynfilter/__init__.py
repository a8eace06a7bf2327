# SPDX-License-Identifier: Apache-2.0
"""Keras layers whose convolution filters are predicted by the network itself: one per image, or one per pixel."""

from keras_dynfilter import environment  # noqa: F401, before everything else that imports Keras

# isort: split

from keras_dynfilter import layers, models, ops, regularizers
from keras_dynfilter.ops import implementation
from keras_dynfilter.version import __version__

__all__ = ["__version__", "implementation", "layers", "models", "ops", "regularizers"]
