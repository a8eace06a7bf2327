# SPDX-License-Identifier: Apache-2.0
"""Loads grey frames from video files and from folders of images.

imageio decodes video files with PyAV. The wheels of PyAV contain FFmpeg, so that all common formats work without a
system package.
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from examples.experiments.data.image_limits import check_pixels
from examples.experiments.data.photographs import check_size, image_files, read_grey, resized
from keras_dynfilter.ops.checks import positive
from keras_dynfilter.untrusted import archives, memory

CHECKED = 100  # frames between two looks at the available memory


def load_video(
    path: str | os.PathLike, size: int | tuple[int, int] | None = None, stride: int = 1, limit: int | None = None
) -> np.ndarray:
    """Loads a video.

    Args:
        path: A video file, or a folder of images, one per frame, in the order of their names.
        size: Rows of a frame, where the number of columns keeps the aspect ratio; or rows and columns. None: frames
            keep their size. Frames are resized by averaging over areas.
        stride: Positive integer: every `stride`-th frame is taken.
        limit: Largest number of frames to take. None: all frames.

    Returns:
        `[frames, height, width]`, float32, grey, in `[0, 1]`.

    Raises:
        ValueError: `path` does not exist or is not a video, frames differ in size, or another argument is not as
            described.
        ImportError: imageio, PyAV or scikit-image is not installed.
    """
    size, stride = check_size(size), positive(stride, "stride")
    limit = None if limit is None else positive(limit, "limit")
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"Expected `path` to be a video file or a folder of frames. Received: path={str(path)!r}")
    frames = map(read_grey, image_files(path)[::stride]) if path.is_dir() else _decode(path, stride)
    taken: list[np.ndarray] = []
    for frame in frames:
        taken.append(resized(frame, size))
        if len(taken) % CHECKED == 1:
            # The frames are copied once: `np.stack` joins them.
            memory.check(2 * CHECKED * taken[-1].nbytes, f"{CHECKED} more frames of {path} after {len(taken)}")
        if taken[-1].shape != taken[0].shape:
            shapes = f"{taken[0].shape} and {taken[-1].shape}"
            raise ValueError(f"Expected the frames of {path} to be of one size. Received: {shapes}")
        if len(taken) == limit:
            break
    if not taken:
        raise ValueError(f"Expected `path` to hold frames. Received: path={str(path)!r}")
    return np.stack(taken)


def _decode(path: pathlib.Path, stride: int) -> Iterator[np.ndarray]:
    try:
        import av  # noqa: F401  otherwise, if PyAV is missing, imageio raises an error that names its own extra
        import imageio.v3 as imageio
    except ImportError as error:
        raise ImportError(
            "Video files need imageio and PyAV. Install them with the extra `examples`: "
            "pip install 'keras_dynfilter[examples]'"
        ) from error
    try:
        archives.check_regular(path)
        with imageio.imopen(path, "r", plugin="pyav") as file:
            height, width, *_ = file.properties(index=0, format="gray").shape
            check_pixels(height, width, path)
            for index, frame in enumerate(file.iter(format="gray")):
                check_pixels(*frame.shape[:2], path)  # a stream may change its size
                if index % stride == 0:
                    yield frame.astype(np.float32) / np.float32(255)
    except Exception as error:  # decoders raise many types; the error text names the file
        raise ValueError(f"Expected {path} to be a video. Received: {error}") from error
