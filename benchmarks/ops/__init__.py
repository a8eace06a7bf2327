# SPDX-License-Identifier: Apache-2.0
"""The measured ops, and other forms of them in standard ops."""
