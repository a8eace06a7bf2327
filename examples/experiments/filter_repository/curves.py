# SPDX-License-Identifier: Apache-2.0
"""Draws curves of several seeds."""

import numpy as np


def draw_curves(axis, curves: np.ndarray, title: str, color: str | None = None) -> None:
    """Draws the mean of curves, `[seeds, epochs]`, from epoch 1, and the range from the lowest to the highest one."""
    epochs = np.arange(1, curves.shape[1] + 1)
    (line,) = axis.plot(epochs, curves.mean(axis=0), label=title, color=color)
    axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.2)
    axis.locator_params(axis="x", integer=True)
