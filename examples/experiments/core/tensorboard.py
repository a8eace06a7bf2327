# SPDX-License-Identifier: Apache-2.0
"""Writes the metrics of every epoch for TensorBoard."""

import pathlib

import keras

from examples.experiments.core import files


class TensorBoard(keras.callbacks.TensorBoard):
    """Writes the metrics of every epoch, and raises a `files.WriteError` if the folder cannot be written.

    Put it after the callback that saves the state, so that an epoch whose metrics cannot be written is not lost.

    Args:
        folder: The folder of the logs. It is created.
    """

    def __init__(self, folder: pathlib.Path):
        super().__init__(str(folder), write_graph=False)
        self.folder = folder
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)

    def _writing(self):
        return files.writing(self.folder, "folder")

    def on_train_begin(self, logs=None):
        with self._writing():
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        with self._writing():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        with self._writing():
            super().on_train_end(logs)
