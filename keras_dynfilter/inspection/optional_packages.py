# SPDX-License-Identifier: Apache-2.0
"""Packages that only pictures need: imported on first use, so that models run without them."""

import importlib


def need(module, package, what="examples.experiments.figures"):
    """Imports and returns `module` of `package`, or says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {package}. Install it with the extra `examples`: pip install 'keras_dynfilter[examples]'"
        ) from error
