# SPDX-License-Identifier: Apache-2.0
"""Keras layers that filter their inputs with given or generated filters."""

from keras_dynfilter.layers.ddf2d import DDF2D
from keras_dynfilter.layers.ddf_up2d import DDFUp2D
from keras_dynfilter.layers.dynamic_conv2d import DynamicConv2D
from keras_dynfilter.layers.dynamic_depthwise_conv2d import DynamicDepthwiseConv2D
from keras_dynfilter.layers.dynamic_local_filter2d import DynamicLocalFilter2D
from keras_dynfilter.layers.filter_norm import FilterNorm
from keras_dynfilter.layers.filter_repository import FilterRepository
from keras_dynfilter.layers.repository_conv2d import RepositoryConv2D
from keras_dynfilter.layers.untied_bias import UntiedBias

__all__ = [
    "DDF2D",
    "DDFUp2D",
    "DynamicConv2D",
    "DynamicDepthwiseConv2D",
    "DynamicLocalFilter2D",
    "FilterNorm",
    "FilterRepository",
    "RepositoryConv2D",
    "UntiedBias",
]
