# SPDX-License-Identifier: Apache-2.0
"""Frees the models of a test file before the next one starts."""

import keras
import pytest


@pytest.fixture(scope="module", autouse=True)
def clear_session():
    """Drops what Keras keeps of the models that the tests of a file have built."""
    yield
    keras.backend.clear_session()
