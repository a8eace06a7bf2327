# SPDX-License-Identifier: Apache-2.0
"""Finds the libraries of compiled ops that this process has loaded already, by any way and from any path.

TensorFlow keeps the ops of a library until the process ends, and a second library would register them again. The
process may have loaded one before: by a copy of this package that was imported earlier, or by `tf.load_op_library`.
"""

import dataclasses
import pathlib
import re
import sys
from typing import Any

import tensorflow as tf

OP = "KerasDynfilter>LocalFilter2D"  # one of the ops, which stands for all
_FUNCTION = "keras_dynfilter_local_filter2d"
_LIBRARY = re.compile(r"/.*/libkeras_dynfilter_(ops|xla)-([0-9a-f]{16})-[0-9a-f]+\.so")


@dataclasses.dataclass(frozen=True)
class Registered:
    """The compiled ops that are registered in this process.

    Attributes:
        ops: The module of raw ops.
        version: The version of the ops (`sources.ops_version()`), or `""` if the file is not known.
        path: The file of the ops.
        xla_path: The file of the XLA library, or `""` if none is loaded.
    """

    ops: Any
    version: str
    path: str
    xla_path: str


def find() -> Registered | None:
    """Returns the ops that are registered in this process, or None if no library has registered any."""
    loaded = _loaded_files()
    path, version = loaded.get("ops", ("a file with another name", ""))
    ops = _module()
    if ops is None and version:  # loaded, but not by Python
        ops = tf.load_op_library(path)
        version = version if hasattr(ops, _FUNCTION) else ""
    return None if ops is None else Registered(ops, version, path, loaded.get("xla", ("", ""))[0])


def _module():
    """Returns the module of raw ops that `tf.load_op_library` has created in this process, or None."""
    for name, module in list(sys.modules.items()):
        # TensorFlow names such modules by a SHA-1. Other modules are not touched, because some load lazily.
        if re.fullmatch("[0-9a-f]{40}", name) and hasattr(module, _FUNCTION):
            return module
    return None


def _loaded_files():
    """Returns the paths and versions of the libraries that are mapped into this process, by kind."""
    found: dict[str, tuple[str, str]] = {}
    try:
        lines = pathlib.Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:  # in a container without /proc
        return found
    for line in lines:
        match = _LIBRARY.search(line)
        if match:
            found.setdefault(match[1], (match[0], match[2]))
    return found
