# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of exported files and of the ops in them."""
