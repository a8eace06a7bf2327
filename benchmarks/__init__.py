# SPDX-License-Identifier: Apache-2.0
"""Measures time and memory of ops, layers and exported networks, and of their alternatives."""

from benchmarks import timing  # noqa: F401  (imported first: enables statistics before TensorFlow allocates)
