# SPDX-License-Identifier: Apache-2.0
"""Makes distribution strategies, and checks that several workers work on the same training."""

import contextlib
import functools
import os
import pathlib
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf

from examples.experiments.core.checkpoint import SetupError

STRATEGIES = ("one", "mirrored", "multi-worker")
# Errors of a step whose peer has ended.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """Returns the strategy with a name of `STRATEGIES`; None for `"one"`. There is one strategy of each name.

    The first call with `"multi-worker"` must come before TensorFlow has started, and waits for the other workers.

    Raises:
        ValueError: `TF_CONFIG` does not describe a cluster for `"multi-worker"`, or the address of this worker cannot
            be used.
    """
    if name == "one":
        return None
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if not resolver.cluster_spec().as_dict():
        expected = "Expected the variable TF_CONFIG to describe the cluster and the task of this process"
        raise ValueError(f"{expected}. Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}")
    try:
        with _sigterm_as_before():
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.UnknownError as error:  # the gRPC server did not start
        expected = "Expected TF_CONFIG to give this process a free port on this machine"
        raise ValueError(f"{expected}. Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}: {error.message}") from error


@contextlib.contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Restores what SIGTERM does after the block.

    TensorFlow's strategy catches the signal, so that a program could save its state and end. Without such a program,
    the training would go on until the scheduler kills it. Here, the state of the last checkpoint is always complete, so
    a worker may end at once, as a process without strategy does.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def several_workers(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether a strategy trains in several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether this process writes files: of several workers, only one does."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" or (not has_chief and (resolver.task_type, resolver.task_id) == ("worker", 0))


class LostWorkerError(RuntimeError):
    """Reports that another worker has ended. The message is for the user."""


@contextlib.contextmanager
def watching_workers(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Raises a `LostWorkerError` if the block fails because another worker has ended."""
    try:
        yield
    except LOST as error:
        if not several_workers(strategy):
            raise
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise LostWorkerError(f"Another worker has ended, or cannot be reached ({reason}).") from error


def check_same_step(strategy: tf.distribute.Strategy | None, step: int, path: pathlib.Path) -> None:
    """Checks that all workers continue at the same step.

    Args:
        strategy: The strategy.
        step: The step at which this worker continues.
        path: File of the state, for the error.

    Raises:
        SetupError: The steps of the workers differ.
    """
    if not several_workers(strategy):
        return
    own = strategy.run(lambda: tf.constant([step], tf.int64))
    steps = sorted({int(other) for other in strategy.gather(own, axis=0)})
    if len(steps) > 1:
        expected = f"Expected all workers to read the same state, {path}, in an --out that they share"
        raise SetupError(f"{expected}. Received: states after the steps {', '.join(map(str, steps))}")
