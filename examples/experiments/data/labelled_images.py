# SPDX-License-Identifier: Apache-2.0
"""The type that loaders of labelled images return."""

from typing import NamedTuple

import numpy as np


class LabelledImages(NamedTuple):
    """Images with their classes.

    Attributes:
        images: `[count, height, width, channels]`, uint8.
        labels: `[count]`, integers.
        source: The name of the data set that the images come from. `source="auto"` leaves the choice to the loader.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
