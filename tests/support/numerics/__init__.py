# SPDX-License-Identifier: Apache-2.0
"""Random problems, their true results with derived error bounds, and all implementations that have to keep them."""
