# SPDX-License-Identifier: Apache-2.0
"""Runs exported files where neither Keras nor keras_dynfilter is installed."""
