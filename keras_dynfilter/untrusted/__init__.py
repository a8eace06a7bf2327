# SPDX-License-Identifier: Apache-2.0
"""Checks files from unknown sources before they are read: names of members, kinds of members, and sizes."""
