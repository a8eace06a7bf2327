# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of layers and of training steps."""
