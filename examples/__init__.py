# SPDX-License-Identifier: Apache-2.0
"""Example scripts (`quickstart.py` and others), deployment runners, and the experiments of the papers."""
