# SPDX-License-Identifier: Apache-2.0
"""The compiled part of keras_dynfilter: the C++ and CUDA sources in `cc/`, and `build.py`, which builds them.

The modules import each other relatively, because `setup.py` uses them without the package.
"""
