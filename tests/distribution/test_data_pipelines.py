# SPDX-License-Identifier: Apache-2.0
"""Ops inside `tf.data`: in parallel calls of `map`, and on the workers of the `tf.data` service."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops import local_filter2d
from tests.support.paths import ROOT

STEPS = 16

WORKER = """
import sys
import tensorflow as tf
{load}
config = tf.data.experimental.service.WorkerConfig(dispatcher_address=sys.argv[1])
worker = tf.data.experimental.service.WorkerServer(config)
print("ready", flush=True)
sys.stdin.read()  # until the test ends
"""
LOAD = "import keras_dynfilter.info; keras_dynfilter.info.report()"


def filtered(step):
    """Returns the step and filtered images of the step."""
    images = tf.random.stateless_uniform([2, 9, 8, 4], tf.stack([step, 0]))
    filters = tf.random.stateless_normal([2, 9, 8, 9], tf.stack([step, 1]))
    return step, local_filter2d(images, filters, 3)


def check(data, implementation):
    with keras_dynfilter.implementation(implementation):
        results = dict(data().as_numpy_iterator())
        assert sorted(results) == [*range(STEPS)]
        for step, value in results.items():
            np.testing.assert_array_equal(value, filtered(tf.constant(step, tf.int64))[1])


@pytest.mark.legacy
def test_parallel_calls_of_map(implementation):
    check(lambda: tf.data.Dataset.range(STEPS).map(filtered, num_parallel_calls=4), implementation)


@pytest.fixture
def dispatcher():
    """A dispatcher of the `tf.data` service on a free port of its own choice."""
    return tf.data.experimental.service.DispatchServer(tf.data.experimental.service.DispatcherConfig(port=0))


def served(dispatcher):
    data = tf.data.Dataset.range(STEPS).map(filtered, num_parallel_calls=2)
    return data.apply(tf.data.experimental.service.distribute("parallel_epochs", dispatcher.target))


def address(dispatcher):
    return dispatcher.target.partition("://")[2]


def test_service_in_the_same_process(dispatcher, implementation):
    config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address(dispatcher))
    worker = tf.data.experimental.service.WorkerServer(config)
    check(lambda: served(dispatcher), implementation)
    del worker


@contextlib.contextmanager
def worker_process(dispatcher, load):
    command = [sys.executable, "-c", WORKER.format(load=load), address(dispatcher)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.communicate()  # closes the standard input, which ends the worker


@pytest.mark.slow
def test_service_in_another_process(dispatcher, native_library):
    with worker_process(dispatcher, LOAD):
        check(lambda: served(dispatcher), "native")


@pytest.mark.slow
def test_service_in_another_process_that_has_not_loaded_the_ops(dispatcher, native_library):
    with worker_process(dispatcher, ""), pytest.raises(tf.errors.OpError, match="Op type not registered"):
        check(lambda: served(dispatcher), "native")
