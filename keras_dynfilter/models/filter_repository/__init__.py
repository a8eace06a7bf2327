# SPDX-License-Identifier: Apache-2.0
"""Networks of "Learning to Generate Filters for Convolutional Neural Networks" (Shen and Liu, ICLR 2018 submission)."""
