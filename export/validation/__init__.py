# SPDX-License-Identifier: Apache-2.0
"""Validation of an exported file in a fresh process."""
