# SPDX-License-Identifier: Apache-2.0
"""Applies a function several times within one call, so that the overhead of a call from Python is negligible."""

import math
from collections.abc import Callable, Sequence

VALUES_PER_CALL, MAX_REPETITIONS = 40_000_000, 20


def repetitions(shape: Sequence[int]) -> int:
    """Returns the number of times that images of a shape pass a candidate within one call."""
    return max(1, min(MAX_REPETITIONS, VALUES_PER_CALL // math.prod(shape)))


def chained(apply: Callable, times: int) -> Callable:
    """Returns a function that repeats `apply`, each time with the previous result and the other operands."""

    def function(images, *others):
        for _ in range(times):
            images = apply(images, *others)
        return images

    return function
