# SPDX-License-Identifier: Apache-2.0
"""One module for each export format, with a function `write(traced, path, opset)`, and what these modules need."""
