# SPDX-License-Identifier: Apache-2.0
"""Timings and memory of the ops beside their alternatives: `python -m benchmarks`."""

from benchmarks import timing  # noqa: F401  (first: it switches on statistics before TensorFlow allocates)
