# SPDX-License-Identifier: Apache-2.0
"""Stops a training at the first loss that is not finite, and never lets weights that are not finite be saved.

`keras.callbacks.TerminateOnNaN` waits for every call, cannot name the step if a call executes several steps, and does
not check weights.
"""

import time

import keras
import tensorflow as tf

from examples.experiments.core.checkpointer import Checkpointer
from keras_dynfilter.export import dtypes

SECONDS = 1.0  # between two readings of the losses: a reading waits until the device has finished its steps


class DivergedError(ArithmeticError):
    """Reports a loss or a weight that is not finite. The message is for the user.

    Attributes:
        step: Number of the step, counted from 1.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class FiniteLosses:
    """Counts steps on the device, and keeps the number of the first step whose loss is not finite.

    `record` is a part of the compiled step, so no step waits for the host, and the number is exact even if one call
    executes many steps, or if the host reads it later. Create the object in the scope of the strategy.
    """

    def __init__(self):
        aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA  # `record` makes the replicas agree
        # The number of steps; after a loss that is not finite, minus the number of its step.
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=aggregation)

    def start(self, step: int) -> None:
        """Sets the number of steps so far."""
        self.count.assign(step)

    def record(self, loss: tf.Tensor) -> None:
        """Counts a step. Call it once per step, in every replica."""
        finite = tf.reduce_all(tf.math.is_finite(loss))
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            bad = replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~finite, tf.float32))
            finite = tf.equal(bad, 0.0)
        count = self.count.read_value()
        self.count.assign(tf.where(count < 0, count, tf.where(finite, count + 1, -count - 1)))

    def first_not_finite(self) -> int | None:
        """Returns the number of the first step whose loss is not finite, counted from 1; None if there is none."""
        count = int(self.count.numpy())
        return -count if count < 0 else None


class StopIfNotFinite(keras.callbacks.Callback):
    """Raises a `DivergedError` if a loss or a variable is not finite. It must come before callbacks that save.

    Args:
        losses: Losses of the training, which the model records.
        checkpointer: The callback that saves the state.
        total: Number of steps of the training, for the message.
        within_epochs: Whether to stop within an epoch, too. Several workers must stop at the same step, and their
            clocks differ, so they only stop at the end of an epoch.
    """

    def __init__(self, losses: FiniteLosses, checkpointer: Checkpointer, total: int, within_epochs: bool):
        super().__init__()
        self.losses, self.checkpointer, self.total, self.within_epochs = losses, checkpointer, total, within_epochs
        self.read = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if self.within_epochs and time.perf_counter() - self.read >= SECONDS:
            self._check_losses()
            self.read = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._check_losses()
        # A finite loss can have a gradient that is not finite, and weights can be infinite without effect on the loss.
        bad = [variable for variable in self.checkpointer.variables if dtypes.count_not_finite(variable.numpy())]
        if bad:
            names = f"{len(bad)} variables are not finite, the first is {getattr(bad[0], 'path', bad[0].name)},"
            self._stop(f"{names} after", self.checkpointer.position)

    def _check_losses(self):
        step = self.losses.first_not_finite()
        if step is not None:
            self._stop("the loss is not finite at", step)

    def _stop(self, what, step):
        name, path, saved = self.checkpointer.name, self.checkpointer.path, self.checkpointer.saved
        kept = f"No state was saved in {path}" if saved is None else f"{path} keeps the state after step {saved}"
        advice = "a lower learning rate may help, with another --out"
        raise DivergedError(f"{name} diverged: {what} step {step} of {self.total}. {kept}; {advice}.", step)
