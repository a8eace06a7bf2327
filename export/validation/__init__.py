# SPDX-License-Identifier: Apache-2.0
"""Validates an exported file: runs it in a fresh process and compares its outputs with the outputs of the model."""
