# SPDX-License-Identifier: Apache-2.0
"""Exports Keras models to files that run without this package, and validates each file in a fresh process.

    from keras_dynfilter import export

    report = export.export(model, "model.onnx", format="onnx")

On the command line: `keras-dynfilter-export MODEL.keras --format onnx --out model.onnx`.
"""

from keras_dynfilter.export.api import export
from keras_dynfilter.export.formats import FORMATS, Format
from keras_dynfilter.export.report import (
    ExportError,
    OutputCheck,
    Report,
    TaskResult,
    ValidationError,
    ValidationResult,
)
from keras_dynfilter.export.runtime_library import ort_library
from keras_dynfilter.export.validation.settings import Task, Validation
from keras_dynfilter.export.writers.keras_onnx import register_onnx_handlers

__all__ = [
    "FORMATS",
    "ExportError",
    "Format",
    "OutputCheck",
    "Report",
    "Task",
    "TaskResult",
    "Validation",
    "ValidationError",
    "ValidationResult",
    "export",
    "ort_library",
    "register_onnx_handlers",
]
