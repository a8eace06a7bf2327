# SPDX-License-Identifier: Apache-2.0
"""Dtypes that NumPy lacks are floating-point, too."""

import ml_dtypes
import numpy as np
import pytest

from keras_dynfilter.export import dtypes

EXTENSIONS = (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, *EXTENSIONS])
def test_floating_point(dtype):
    array = np.array([1.5, np.nan, -2.0], np.float32).astype(dtype)
    assert dtypes.is_floating(array.dtype)
    assert dtypes.count_not_finite(array) == 1 and dtypes.count_not_finite(array[::2]) == 0
    stored = dtypes.storable(array)
    assert np.issubdtype(stored.dtype, np.floating)
    np.testing.assert_array_equal(stored, array.astype(stored.dtype))
    assert dtypes.restored(stored, dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize("values", [[1, 2], [True], ["a"], [b"a"], [object()], [], [1 + 2j]])
def test_others(values):
    array = np.array(values) if values else np.zeros(0, np.int8)
    assert not dtypes.is_floating(array.dtype)
    assert dtypes.count_not_finite(array) == 0
    assert dtypes.storable(array) is array and dtypes.restored(array, array.dtype) is array


def test_complex_values_that_are_not_finite():
    assert dtypes.count_not_finite(np.array([1.0, complex(0, np.inf)])) == 1
