# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of experiments."""

import keras
import pytest


@pytest.fixture(scope="module", autouse=True)
def free_networks():
    """Frees what Keras keeps of the networks of a file, so that the memory of a process stays small."""
    yield
    keras.backend.clear_session()
