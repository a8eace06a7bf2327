# SPDX-License-Identifier: Apache-2.0
"""Networks of ordinary convolutions, which the dynamic networks are compared with."""
