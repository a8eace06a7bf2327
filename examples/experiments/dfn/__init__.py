# SPDX-License-Identifier: Apache-2.0
"""Experiments of Dynamic Filter Networks (De Brabandere et al., NeurIPS 2016)."""
