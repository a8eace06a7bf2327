# SPDX-License-Identifier: Apache-2.0
"""Networks of ordinary convolutions, as baselines for the dynamic filter networks, and their blocks."""
