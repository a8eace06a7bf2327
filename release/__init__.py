# SPDX-License-Identifier: Apache-2.0
"""Builds and checks what a release consists of. Not part of the installed package."""
