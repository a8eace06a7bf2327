# SPDX-License-Identifier: Apache-2.0
"""Refuses image files that would need too much memory, by their headers, before they are decoded."""

import pathlib
import re
import struct

import tensorflow as tf

from keras_dynfilter.untrusted import archives, memory

MAX_PIXELS = 2**26  # 8192 x 8192; a file of some kilobytes can declare a thousand times as many
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # the first bytes of a file


def read_bytes(file: pathlib.Path) -> bytes:
    """Returns the content of a regular file that fits in memory.

    Raises:
        ValueError: `file` is a folder, a device or a pipe, or has more bytes than half of the available memory.
        OSError: The file cannot be read.
    """
    archives.check_regular(file)
    memory.check(file.stat().st_size, str(file))
    return file.read_bytes()


def check_pixels(height: int, width: int, file: object) -> None:
    """Raises a ValueError if an image has no pixels, or more than `MAX_PIXELS`."""
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"Expected {file} to have 1 to {MAX_PIXELS} pixels. Received: {height} x {width}")


def check_image(content: bytes, file: object) -> None:
    """Raises a ValueError if `content` is not a PNG, JPEG or BMP image, or has too many pixels."""
    if content[:8] == PNG:
        check_png(content, file)
    elif content[:2] == b"BM" and len(content) >= 26:
        width, height = struct.unpack("<ii", content[18:26])
        check_pixels(abs(height), width, file)  # the height is negative if the first row is at the top
    elif content[:3] == JPEG:
        check_jpeg(content, file)
    else:
        received = f"{len(content)} bytes that begin with {content[:8]!r}"
        raise ValueError(f"Expected {file} to be a PNG, JPEG or BMP image. Received: {received}")


def check_png(content: bytes, file: object) -> None:
    """Raises a ValueError if `content` is not a PNG image, or has too many pixels."""
    if content[:8] != PNG or len(content) < 24:
        raise ValueError(f"Expected {file} to be a PNG image. Received: {len(content)} bytes that begin otherwise")
    width, height = struct.unpack(">II", content[16:24])
    check_pixels(height, width, file)


def reason(error: tf.errors.OpError) -> str:
    """Returns the text of an error of an op, without the names of nodes and devices that TensorFlow adds."""
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", "", error.message, flags=re.DOTALL)


def check_jpeg(content: bytes, file: object) -> None:
    """Raises a ValueError if `content` is not a JPEG image, or has too many pixels."""
    try:
        height, width, _ = tf.io.extract_jpeg_shape(content).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Expected {file} to be a JPEG image. Received: {reason(error)}") from error
    check_pixels(int(height), int(width), file)
