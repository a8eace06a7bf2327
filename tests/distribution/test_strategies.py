# SPDX-License-Identifier: Apache-2.0
"""Layers train alike on one device, on two devices, and on two workers, at equal global batch."""

import json

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.toy_processes import cluster, finish, start

SCRIPT = str(ROOT / "tests" / "support" / "train_layers.py")
# float32 losses below 1 whose terms are summed in another order; the difference grows with the steps
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


def losses(process):
    return json.loads(finish(process).splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    """Losses of one device."""
    return losses(start(SCRIPT, "one"))


@pytest.mark.slow
def test_two_devices_train_like_one(alone):
    assert alone[-1] < 0.9 * alone[0]
    np.testing.assert_allclose(losses(start(SCRIPT, "mirrored")), alone, **TOLERANCE)


@pytest.mark.slow
def test_two_workers_train_like_one(alone):
    with cluster(2) as environments:
        workers = [start(SCRIPT, "workers", **environment) for environment in environments]
        for worker in workers:
            np.testing.assert_allclose(losses(worker), alone, **TOLERANCE)


@pytest.mark.slow
def test_data_parallel_of_keras_trains_on_one_device():
    """The documentation says that Keras 3.15 accepts `DataParallel` on TensorFlow, without effect."""
    assert losses(start(SCRIPT, "data-parallel")) == losses(start(SCRIPT, "fit"))
