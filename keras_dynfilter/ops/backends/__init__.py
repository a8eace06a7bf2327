# SPDX-License-Identifier: Apache-2.0
"""The implementations of the ops and the decision between them."""
