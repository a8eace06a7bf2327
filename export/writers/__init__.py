# SPDX-License-Identifier: Apache-2.0
"""Writes the export formats: one module for each, with a function `write(traced, path, opset)`, and shared modules."""
