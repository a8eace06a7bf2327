# SPDX-License-Identifier: Apache-2.0
"""Export of Keras models to files that run without this package, proven in a fresh process.

    from keras_dynfilter import export

    report = export.export(model, "model.onnx", format="onnx")

On the command line: `python -m keras_dynfilter.export MODEL.keras --format onnx --out model.onnx`.

Importing this also makes Keras's own `model.export(path, format="onnx")` work for models that run on the compiled ops.
"""

from keras_dynfilter.export.api import export
from keras_dynfilter.export.formats import FORMATS, Format
from keras_dynfilter.export.ort_library import ort_library
from keras_dynfilter.export.report import ExportError, OutputCheck, Report, Validation, ValidationError
from keras_dynfilter.export.writers import keras_onnx

__all__ = [
    "FORMATS",
    "ExportError",
    "Format",
    "OutputCheck",
    "Report",
    "Validation",
    "ValidationError",
    "export",
    "ort_library",
]

keras_onnx.register()
