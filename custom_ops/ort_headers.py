# SPDX-License-Identifier: Apache-2.0
"""Finds the C and C++ headers of ONNX Runtime, which its Python wheels do not contain.

The API is versioned: a library that is compiled with the headers of one release runs in newer releases. The module
searches these places, and takes the headers from the first place that has them:

1. the folder that the variable KERAS_DYNFILTER_ORT_INCLUDE names (the folder `include` of an ONNX Runtime release),
2. a system package (`libonnxruntime-dev` of Debian 13 and newer),
3. the same Debian package, downloaded and unpacked in the cache.
"""

import os
import pathlib
import tempfile
from collections.abc import Callable

from . import debian
from .cache import PARTIAL, Cache
from .errors import BuildError

VARIABLE = "KERAS_DYNFILTER_ORT_INCLUDE"
HEADER = "onnxruntime_cxx_api.h"
SYSTEM = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime")
SUBFOLDERS = (".", "onnxruntime", "core/session", "onnxruntime/core/session")
VERSION = "1.21.0"
PACKAGE = "pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"  # the same headers for all processors
SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"


class HeadersError(BuildError):
    """The headers were not found. The message says how to provide them."""


def find_headers(cache: str | os.PathLike, progress: Callable[[str], object] = lambda text: None) -> pathlib.Path:
    """Returns the folder that contains `onnxruntime_cxx_api.h`.

    Args:
        cache: The folder in which downloaded headers are kept.
        progress: A function that is called with a line of text before a download.

    Raises:
        HeadersError: No place has the headers, or the variable names a folder without them.
        BuildError: Other users can change the cache.
        OSError: The cache cannot be written.
    """
    requested = os.environ.get(VARIABLE)
    if requested:
        folder = _folder_in(requested)
        if folder is None:
            raise HeadersError(f"Expected {VARIABLE} to be a folder with {HEADER}. Received: {VARIABLE}={requested}")
        return folder
    kept = Cache(cache)
    target = kept.folder / f"onnxruntime-{VERSION}"
    for place in (*SYSTEM, target):
        folder = _folder_in(place)
        if folder is not None:
            return folder
    kept.prepare()
    with kept.lock(target, lambda: progress(f"keras_dynfilter: waiting for another process that downloads {target}")):
        if _folder_in(target) is None:
            progress(f"keras_dynfilter: downloading the headers of ONNX Runtime {VERSION}, once")
            _unpack(_download(), target)
    return _folder_in(target)


def _folder_in(place):
    """Returns the folder at or below `place` that contains the headers, or None."""
    folders = (pathlib.Path(place) / subfolder for subfolder in SUBFOLDERS)
    return next((folder.resolve() for folder in folders if (folder / HEADER).is_file()), None)


def _download():
    """Returns the bytes of the package."""
    try:
        return debian.download(PACKAGE, SHA256)
    except debian.DownloadError as error:
        raise HeadersError(
            "The headers of ONNX Runtime were not found, and could not be downloaded. Install libonnxruntime-dev, or "
            f"unpack a release of ONNX Runtime (1.18 or newer) and set {VARIABLE} to its folder `include`. {error}"
        ) from error


def _unpack(package, target):
    """Writes the headers of a Debian package to the folder `target`. The folder appears only when it is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=target.name + PARTIAL) as folder:
        headers = pathlib.Path(folder) / "headers"
        headers.mkdir()
        with debian.open_files(package) as archive:
            for entry in archive:
                path = pathlib.PurePosixPath(entry.name)
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None and path.suffix == ".h" and path.parent.name == "onnxruntime":
                    _write(headers / path.name, file.read())
        headers.rename(target)


def _write(path, content):
    """Writes a file to the disk, so that a power failure after the folder gets its name leaves no empty file."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
