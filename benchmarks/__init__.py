# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: time and memory of ops, layers and exported networks next to their alternatives."""

from benchmarks import timing  # noqa: F401  (imported first: it must enable statistics before TensorFlow allocates)
