# SPDX-License-Identifier: Apache-2.0
"""Defines the type that loaders of labelled images return."""

from typing import NamedTuple

import numpy as np


class LabelledImages(NamedTuple):
    """Images with their classes.

    Attributes:
        images: `[count, height, width, channels]`, uint8.
        labels: `[count]`, integers.
        source: The name of the data set that the images come from. With `source="auto"`, the loader has chosen it.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
