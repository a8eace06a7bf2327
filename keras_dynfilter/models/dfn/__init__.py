# SPDX-License-Identifier: Apache-2.0
"""The networks of Dynamic Filter Networks (De Brabandere et al., NeurIPS 2016)."""
