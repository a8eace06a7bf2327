# SPDX-License-Identifier: Apache-2.0
"""Defines what a build for TensorFlow returns."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Libraries:
    """Paths of the two libraries.

    Attributes:
        ops: The library of ops.
        xla: The library that lowers the ops to XLA, or None if it was not built.
        notes: What is missing, and why.
        cuda: Whether the libraries have CUDA kernels.
    """

    ops: pathlib.Path
    xla: pathlib.Path | None
    notes: tuple[str, ...] = ()
    cuda: bool = False
