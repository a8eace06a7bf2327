# SPDX-License-Identifier: Apache-2.0
"""Refuses models whose variables would not fit in memory: a few bytes of a configuration can declare any number."""

import concurrent.futures
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.untrusted import memory


def check(build: Callable[[], keras.Model], name: str) -> None:
    """Raises a ValueError if the variables of a model need more than half of the available memory.

    Builds the model without values of its variables, which Keras 2 cannot do.
    """
    if not hasattr(keras, "StatelessScope"):
        return

    def variables() -> list[Any]:
        with keras.StatelessScope(initialize_variables=False):
            return build().variables

    try:
        # In another thread, where Keras counts names of layers anew: the names of the model itself stay the same.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            declared = pool.submit(variables).result()
    except Exception:  # a layer that needs the values, or an error that the model raises again outside of the scope
        return
    size = sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in declared)
    memory.check(size, name)
