# SPDX-License-Identifier: Apache-2.0
"""Data of the experiments: generators and loaders that need no download unless they say so."""

from keras_dynfilter.data.photographs import load_folder, load_photographs, noise_patches, sample_patches
from keras_dynfilter.data.steerable import filtered, steerable_filter, steerable_triples

__all__ = [
    "filtered",
    "load_folder",
    "load_photographs",
    "noise_patches",
    "sample_patches",
    "steerable_filter",
    "steerable_triples",
]
