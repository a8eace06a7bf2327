# SPDX-License-Identifier: Apache-2.0
"""The ops that are measured, and other ways to write them."""
