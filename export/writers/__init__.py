# SPDX-License-Identifier: Apache-2.0
"""Writers of the exported formats."""
