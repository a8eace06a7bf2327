# SPDX-License-Identifier: Apache-2.0
"""Experiments of Decoupled Dynamic Filter Networks (Zhou et al., CVPR 2021)."""
