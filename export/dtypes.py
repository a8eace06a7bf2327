# SPDX-License-Identifier: Apache-2.0
"""Examines arrays of all floating-point dtypes, also of those that NumPy itself lacks: bfloat16 and float8.

These dtypes come from the package `ml_dtypes`. `np.issubdtype` does not count them as floating-point.
"""

from typing import Any

import numpy as np


def is_floating(dtype: Any) -> bool:
    """Returns whether a dtype of NumPy or of `ml_dtypes` is floating-point. Complex dtypes are not."""
    return "float" in np.dtype(dtype).name


def count_not_finite(array: np.ndarray) -> int:
    """Returns the number of NaN and infinite values of an array. An array of texts or objects has none."""
    try:
        return int(array.size - np.count_nonzero(np.isfinite(array)))
    except TypeError:
        return 0


def storable(array: np.ndarray) -> np.ndarray:
    """Returns an array in float32 if a file of NumPy arrays cannot store its dtype, such as bfloat16; otherwise itself.

    `restored` is the inverse function. No value changes.
    """
    return array.astype(np.float32) if _is_extension(array.dtype) else array


def restored(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Returns an array in the dtype that it had before `storable` converted it."""
    return array.astype(dtype) if _is_extension(dtype) and array.dtype == np.float32 else array


def _is_extension(dtype: Any) -> bool:
    return is_floating(dtype) and not np.issubdtype(dtype, np.floating)
