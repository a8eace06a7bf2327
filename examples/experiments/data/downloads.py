# SPDX-License-Identifier: Apache-2.0
"""Downloads data sets through Keras. A download fails if the network does not answer for some seconds."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

TIMEOUT = 20  # seconds without an answer, after which a download fails


def load_with_keras(load_data: Callable[[], Any], name: str, split: str) -> tuple:
    """Returns the arrays of one split of a data set that Keras downloads once and then keeps.

    Args:
        load_data: For example `keras.datasets.mnist.load_data`.
        name: Name of the data set, for the error text.
        split: `"train"` or `"test"`.

    Raises:
        OSError: Keras cannot download the data set.
    """
    try:
        with _socket_timeout():
            train, test = load_data()
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise OSError(f"{name} is neither here nor to be downloaded ({error}).") from error
    return train if split == "train" else test


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """Sets a timeout for sockets, so that a firewall that drops packets does not block a run for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
