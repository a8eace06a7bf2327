# SPDX-License-Identifier: Apache-2.0
"""The networks of "Learning to Generate Filters for Convolutional Neural Networks" (ICLR 2018 submission)."""
