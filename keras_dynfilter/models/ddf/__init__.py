# SPDX-License-Identifier: Apache-2.0
"""The networks of Decoupled Dynamic Filter Networks (Zhou et al., CVPR 2021)."""
