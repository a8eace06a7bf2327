# SPDX-License-Identifier: Apache-2.0
"""Networks of ordinary convolutions, which the dynamic filter networks are compared with, and their blocks."""
