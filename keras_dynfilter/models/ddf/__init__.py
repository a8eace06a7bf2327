# SPDX-License-Identifier: Apache-2.0
"""Networks of "Decoupled Dynamic Filter Networks" (Zhou et al., CVPR 2021), and the use of DDF in existing models."""
