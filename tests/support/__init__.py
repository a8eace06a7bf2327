# SPDX-License-Identifier: Apache-2.0
"""Reference implementations, shared cases and helpers of the tests."""
