# SPDX-License-Identifier: Apache-2.0
"""Computes the optical flow that generated filters imply (https://arxiv.org/abs/1605.09673), and its error.

A flow vector (x, y) points from a pixel to the place that its value comes from, in pixels to the right and down. This
is backward flow, `later[y, x] = earlier[y + flow_y, x + flow_x]`: image content moves by minus the vector.
"""

import numpy as np

from keras_dynfilter.ops.geometry import Geometry

# Largest accepted distance between 1 and the sum of a filter's taps after the softmax: bfloat16 rounds by 0.4 %.
SUM_TOLERANCE = 0.02


def filters_to_flow(filters: np.ndarray, kernel_size: int | tuple[int, int]) -> np.ndarray:
    """Computes the expected offset of each filter: the average position of its taps, weighted by the filter.

    Args:
        filters: Filters after the softmax, `[..., kernel_h * kernel_w]`, taps in row-major order.
        kernel_size: Integer or pair `(kernel_h, kernel_w)`. Windows of even size have one more tap after the centre
            than before it, as in `DynamicConv2D`.

    Returns:
        Flow (x, y) in pixels, `[..., 2]`: float64 for float64 filters, otherwise float32.

    Raises:
        ValueError: The last axis does not have `kernel_h * kernel_w` taps, or a filter does not sum to 1.
    """
    geometry = Geometry.make(kernel_size, even=True)
    filters = np.asarray(filters)
    if filters.dtype != np.float64:
        filters = filters.astype(np.float32)
    if filters.ndim < 1 or filters.shape[-1] != geometry.taps:
        expected = f"Expected `filters` to have {geometry.taps} taps on the last axis for {geometry.kernel_size}"
        raise ValueError(f"{expected}. Received: filters.shape={filters.shape}")
    distances = np.abs(filters.sum(axis=-1) - 1)
    if not (distances <= SUM_TOLERANCE).all():
        expected = "Expected `filters` to sum up to 1 over the taps, as they do after a softmax"
        raise ValueError(f"{expected}. Received: filters with sums up to {distances.max():g} away from 1")
    (top, _), (left, _) = geometry.pads
    kernel_h, kernel_w = geometry.kernel_size
    x, y = np.meshgrid(np.arange(kernel_w) - left, np.arange(kernel_h) - top)
    return filters @ np.stack([x.ravel(), y.ravel()], axis=-1).astype(filters.dtype)


def end_point_error(flow: np.ndarray, true_flow: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Computes the mean distance between flow vectors and true flow vectors, in pixels.

    Args:
        flow: Flow in pixels, `[..., 2]`; or `[..., 1]` if there is only one direction, as in stereo.
        true_flow: True flow with the shape of `flow`.
        mask: `[...]`, non-zero for the vectors to include. None: include all vectors.

    Returns:
        The mean. It is NaN or infinite if an included vector is.

    Raises:
        ValueError: The shapes do not agree, or no vector is included.
    """
    flow, true_flow = (np.asarray(vectors, np.float64) for vectors in (flow, true_flow))
    if flow.ndim < 1 or flow.shape[-1] not in (1, 2) or flow.shape != true_flow.shape:
        expected = "Expected `flow` and `true_flow` to be of one shape (..., 2) or (..., 1)"
        raise ValueError(f"{expected}. Received: flow.shape={flow.shape}, true_flow.shape={true_flow.shape}")
    mask = np.ones(flow.shape[:-1], bool) if mask is None else np.asarray(mask).astype(bool)
    if mask.shape != flow.shape[:-1]:
        raise ValueError(f"Expected `mask` to be of shape {flow.shape[:-1]}. Received: mask.shape={mask.shape}")
    if not mask.any():
        raise ValueError("Expected at least one vector that counts. Received: no vector, or a `mask` without any")
    return float(np.linalg.norm(flow[mask] - true_flow[mask], axis=-1).mean())
