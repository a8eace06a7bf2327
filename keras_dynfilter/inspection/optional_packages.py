# SPDX-License-Identifier: Apache-2.0
"""Imports the packages that only pictures need when they are first used."""

import importlib
import types


def import_optional(module: str, package: str, user: str) -> types.ModuleType:
    """Imports and returns `module`.

    Raises:
        ImportError: `package` is not installed. The message names `user`, the function that needs it, and says how to
            install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{user} needs {package}. Install it with the extra `examples`: pip install 'keras_dynfilter[examples]'"
        ) from error
