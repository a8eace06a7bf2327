# SPDX-License-Identifier: Apache-2.0
"""Saves the state of a training after every epoch."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras

from examples.experiments.core import checkpoint


class Checkpointer(keras.callbacks.Callback):
    """Saves the state after every epoch, counts steps and seconds, and stops the training at the time limit.

    Args:
        name: Name of the network, which a resumed training must share.
        path: File of the state.
        variables: Variables that make up the state.
        limit: Seconds after which this call stops; None: no limit.
        write: Whether to write the state.
        settings: Settings that a resumed training must share, for JSON; None: they are not checked.

    Attributes:
        position: Number of steps so far, over all calls.
        end: Step at which the current call of `fit` ends. The number of epochs that `fit` is given is only displayed.
        seconds: Wall time of the training so far, over all calls, without time lost when a process was killed.
        processor_seconds: Processor time of the training so far, over all calls.
        history: Metrics of every epoch.
        saved: Number of steps of the state in the file; None if this training has no such file.
    """

    def __init__(
        self,
        name: str,
        path: pathlib.Path,
        variables: Sequence,
        limit: float | None = None,
        write: bool = True,
        settings: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.name, self.path, self.variables = name, path, variables
        self.limit, self.write, self.settings = limit, write, settings
        self.position, self.end, self.history, self.saved = 0, 0, [], None
        self.seconds_before = self.processor_before = 0.0
        self.start_clocks()

    def start_clocks(self):
        """Starts the clocks of this call."""
        self.began, self.processor_began = time.perf_counter(), time.process_time()

    @property
    def seconds(self):
        """Wall time of the training so far, over all calls."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def processor_seconds(self):
        """Processor time of the training so far, over all calls."""
        return self.processor_before + time.process_time() - self.processor_began

    def time_is_over(self):
        """Returns whether this call has reached the time limit."""
        return self.limit is not None and time.perf_counter() - self.began >= self.limit

    def load(self, total: int) -> None:
        """Restores the state from the file.

        Args:
            total: Number of steps of the whole training.

        Raises:
            checkpoint.SetupError: The file is damaged, or holds the state of another training.
        """
        arrays, notes = checkpoint.load(self.path)
        if not _are_notes(notes):
            expected = f"Expected the notes in {self.path} to be those of a training"
            raise checkpoint.SetupError(f"{expected}. Received: {notes!r}"[:500] + f". {checkpoint.REMEDY}")
        if None not in (notes["settings"], self.settings):
            checkpoint.check_same_settings(notes["settings"], self.settings, self.path)
        for expected, received, fits in (
            (self.name, notes["name"], notes["name"] == self.name),
            (f"{total} steps or fewer", f"{notes['position']} steps", notes["position"] <= total),
        ):
            if not fits:
                expected = f"Expected {self.path} to hold the state of {expected}"
                raise checkpoint.SetupError(f"{expected}. Received: the state of {received}. {checkpoint.REMEDY}")
        checkpoint.restore(self.variables, arrays, self.path)
        self.position, self.history, self.saved = notes["position"], notes["history"], notes["position"]
        self.seconds_before, self.processor_before = notes["seconds"], notes["processor_seconds"]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_start = self.position

    def on_train_batch_end(self, batch, logs=None):
        self.position = self.epoch_start + batch + 1
        if self.limit is None:
            return
        float(logs["loss"])  # waits for the end of the step: otherwise, the clock would be read too early
        if self.time_is_over():
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        seconds = round(self.seconds, 3)
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.history = [*self.history, {"step": self.position, "seconds": seconds, **metrics}]
        if self.write:
            notes = {
                "name": self.name,
                "position": self.position,
                "seconds": seconds,
                "processor_seconds": round(self.processor_seconds, 3),
                "history": self.history,
                "settings": self.settings,
            }
            checkpoint.save(self.path, [variable.numpy() for variable in self.variables], notes)
        self.saved = self.position
        if self.position >= self.end:
            self.model.stop_training = True


def _are_notes(notes: Any) -> bool:
    """Returns whether `notes` have the names and types that `Checkpointer` writes."""
    types = dict(name=str, position=int, seconds=(int, float), processor_seconds=(int, float), history=list)
    return (
        isinstance(notes, dict)
        and all(isinstance(notes.get(name), kind) for name, kind in types.items())
        and notes["position"] >= 0
        and isinstance(notes.get("settings", 0), (dict, type(None)))
    )
