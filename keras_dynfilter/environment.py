# SPDX-License-Identifier: Apache-2.0
"""Checks what the package needs before the rest of it is imported."""

import keras


def check_backend() -> None:
    """Raises an ImportError if Keras does not compute with TensorFlow, as the layers and ops need it."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            "Expected Keras to use the TensorFlow backend, on which keras_dynfilter runs. Received: "
            f"keras.backend.backend()={backend!r}. Set the environment variable KERAS_BACKEND=tensorflow before Keras "
            "is imported"
        )


check_backend()
