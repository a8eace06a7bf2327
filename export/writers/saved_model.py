# SPDX-License-Identifier: Apache-2.0
"""Writes SavedModels with one signature, `serving_default`, whose inputs and outputs have the names of the model."""

import collections
import pathlib

import tensorflow as tf

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.trace import Traced


def write(traced: Traced, path: pathlib.Path, opset: None) -> dict[str, int]:
    """Writes the traced model to the folder `path`. Returns the number of nodes of each op.

    Raises:
        ExportError: TensorFlow cannot save the model.
    """
    module = tf.Module()
    module.weights = list(traced.concrete.variables)
    module.tables = list(traced.tables)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(path), signatures={"serving_default": traced.concrete}, options=options)
    except (AssertionError, ValueError) as error:
        raise ExportError(f"TensorFlow could not save the traced model: {error}") from error
    return dict(collections.Counter(node.op for node in traced.graph_nodes()))
