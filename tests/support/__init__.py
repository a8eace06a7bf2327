# SPDX-License-Identifier: Apache-2.0
"""Reference implementations, cases and helpers that several test files share."""
