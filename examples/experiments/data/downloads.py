# SPDX-License-Identifier: Apache-2.0
"""Downloads data sets with Keras. A download fails if the network does not answer for some seconds."""

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

import keras

TIMEOUT = 20  # seconds without an answer, after which a download fails


class Download(NamedTuple):
    """A file on the network.

    Attributes:
        url: Its address, which begins with `https://`.
        sha256: SHA-256 of its content.
    """

    url: str
    sha256: str


def download(file: Download, name: str) -> pathlib.Path:
    """Returns the path of a file that is downloaded once and then kept in the folder of Keras, `~/.keras/datasets`.

    The file is neither unpacked nor loaded: the functions of `keras.datasets` would unpickle some of them.

    Args:
        file: The file. Its checksum is compared in every call, also if it was downloaded before.
        name: Name of the data set, for the error text.

    Raises:
        OSError: The file cannot be downloaded, or has another checksum.
    """
    try:
        with _socket_timeout():
            return pathlib.Path(
                keras.utils.get_file(
                    os.path.basename(file.url), file.url, file_hash=file.sha256, hash_algorithm="sha256"
                )
            )
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise OSError(f"{name} is neither here nor to be downloaded ({error}).") from error


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """Sets a timeout for sockets, so that a firewall that drops packets does not block a run for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
