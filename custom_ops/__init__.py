# SPDX-License-Identifier: Apache-2.0
"""The compiled part of keras_dynfilter: C++ and CUDA sources in `cc/`, and what builds them, in `build.py`."""
