# SPDX-License-Identifier: Apache-2.0
"""Says what to do where tf2onnx, which Keras exports with, meets a compiled op that it was not told of."""

import logging
import sys


def _add(record):
    unknown = any("KerasDynfilter>" in str(argument) for argument in record.args or ())
    if unknown and "keras_dynfilter.export" not in sys.modules:
        record.msg += ": `from keras_dynfilter import export` first, then export the model again"
    return True


def register():
    """Gives the logger of tf2onnx a filter that adds the hint to its message; tf2onnx need not be there."""
    logging.getLogger("tf2onnx.tfonnx").addFilter(_add)
