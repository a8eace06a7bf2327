# SPDX-License-Identifier: Apache-2.0
"""Networks of "Decoupled Dynamic Filter Networks" (Zhou et al., CVPR 2021), and DDF in existing models."""
