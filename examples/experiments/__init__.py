# SPDX-License-Identifier: Apache-2.0
"""Experiments that reproduce the results of the three papers."""
