# SPDX-License-Identifier: Apache-2.0
"""Networks of "Dynamic Filter Networks" (De Brabandere et al., NeurIPS 2016)."""
