# SPDX-License-Identifier: Apache-2.0
"""Dynamic filtering ops: stateless functions, differentiable to any order with respect to every argument.

`local_filter2d`, `dynamic_depthwise_conv2d` and `ddf2d` filter each channel separately and have compiled kernels.
`dynamic_conv2d` and `local_conv2d` mix channels.
"""

from keras_dynfilter.ops.backends import native_gradients  # noqa: F401 (registers the gradients of the compiled ops)
from keras_dynfilter.ops.backends.scope import implementation
from keras_dynfilter.ops.ddf import ddf2d
from keras_dynfilter.ops.depthwise import dynamic_depthwise_conv2d
from keras_dynfilter.ops.dynamic_conv import dynamic_conv2d, local_conv2d
from keras_dynfilter.ops.local_filter import local_filter2d

__all__ = [
    "ddf2d",
    "dynamic_conv2d",
    "dynamic_depthwise_conv2d",
    "implementation",
    "local_conv2d",
    "local_filter2d",
]
