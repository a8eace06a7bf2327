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
_REMEMBERED = "_keras_dynfilter"  # an attribute of the module of raw ops
_LIBRARY = re.compile(r"/.*/libkeras_dynfilter_(ops|xla)-([0-9a-f]{16})-[0-9a-f]+\.(?:so|dylib)")


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
    ops, files = _module(), _loaded_files()
    if ops is None and len(files["ops"]) == 1:  # loaded, but not by Python
        ops = tf.load_op_library(files["ops"][0][0])
        if not hasattr(ops, _FUNCTION):
            return Registered(ops, "", files["ops"][0][0], "")
    if ops is None:
        return None
    if hasattr(ops, _REMEMBERED):
        return Registered(ops, *getattr(ops, _REMEMBERED))
    versions = {version for _, version in files["ops"]}  # with several, it is unknown which one was the first
    path = files["ops"][0][0] if files["ops"] else "a file with another name"
    return Registered(
        ops, versions.pop() if len(versions) == 1 else "", path, files["xla"][0][0] if files["xla"] else ""
    )


def remember(registered: Registered) -> None:
    """Records what this process has loaded, for copies of this package that are imported later."""
    setattr(registered.ops, _REMEMBERED, (registered.version, registered.path, registered.xla_path))


def _module():
    """Returns the module of raw ops that `tf.load_op_library` has created in this process, or None."""
    for name, module in list(sys.modules.items()):
        # TensorFlow names such modules by a SHA-1. Other modules are not touched, because some load lazily.
        if re.fullmatch("[0-9a-f]{40}", name) and hasattr(module, _FUNCTION):
            return module
    return None


def _loaded_files():
    """Returns the paths and versions of the libraries that are mapped into this process, by kind."""
    found: dict[str, list[tuple[str, str]]] = {"ops": [], "xla": []}
    try:
        lines = pathlib.Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:  # in a container without /proc
        return found
    for line in lines:
        match = _LIBRARY.search(line)
        if match and (match[0], match[2]) not in found[match[1]]:
            found[match[1]].append((match[0], match[2]))
    return found
