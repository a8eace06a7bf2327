# SPDX-License-Identifier: Apache-2.0
"""Where data lie: in a folder that is given, or in the one that the environment names."""

import os
import pathlib

VARIABLE = "KERAS_DYNFILTER_DATA"


def find_data(name, data_dir=None):
    """Finds a data set that lies on this machine.

    Args:
        name: A folder or file, such as `"stereo"` or `"mnist/mnist.npz"`.
        data_dir: Folder that holds `name`, or `name` itself. What is not there is looked for in the folder that the
            environment variable `KERAS_DYNFILTER_DATA` names.

    Returns:
        A `pathlib.Path`, or None where there is no such data set.

    Raises:
        ValueError: `data_dir`, or what the environment variable names, does not exist.
    """
    places = [("data_dir", data_dir), (VARIABLE, os.environ.get(VARIABLE) or None)]
    parts = pathlib.PurePath(name).parts
    for source, place in places:
        if place is None:
            continue
        place = pathlib.Path(place).expanduser()
        if not place.exists():
            raise ValueError(f"Expected `{source}` to be an existing folder. Received: {source}={str(place)!r}")
        if (place / name).exists():
            return place / name
        if place.resolve().parts[-len(parts) :] == parts:
            return place
    return None
