# SPDX-License-Identifier: Apache-2.0
"""The networks of the papers, as functions that return Keras models."""

from keras_dynfilter.models.dfn import dfn_steerable, dfn_steerable_baseline, generated_filters

__all__ = ["dfn_steerable", "dfn_steerable_baseline", "generated_filters"]
