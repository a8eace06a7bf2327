# SPDX-License-Identifier: Apache-2.0
"""Puts compiled libraries into a copy of the pure wheel."""

import pathlib
import re
import zipfile
from collections.abc import Mapping

from wheel.wheelfile import WheelFile

LIBRARIES = "keras_dynfilter/custom_ops/lib"
# The extras that install TensorFlow. In a wheel for one version they install this version.
EXTRAS = re.compile(r'^Requires-Dist: tensorflow(\[[\w-]+\])?(?![\w-]).*; extra == "(tensorflow|gpu)"$', re.MULTILINE)


def pack(
    pure: pathlib.Path,
    folders: Mapping[str, pathlib.Path],
    files: Mapping[str, pathlib.Path],
    output: pathlib.Path,
    minor: str | None = None,
    platform: str = "linux_x86_64",
) -> pathlib.Path:
    """Writes a wheel with libraries. Returns its path.

    Args:
        pure: The wheel without libraries.
        folders: The folders of libraries by the minor versions of TensorFlow.
        files: Further libraries by their names.
        output: The folder of the new wheel.
        minor: The only version of TensorFlow in the wheel. It becomes a part of the version of the package
            (`0.1.0+tf2.21`), and the extras that install TensorFlow install this version. Without it, the wheel is for
            all versions of `folders`.
        platform: The platform in the name of the wheel.
    """
    name, version = pure.name.split("-")[:2]
    labelled = f"{version}+tf{minor}" if minor else version
    target = output / f"{name}-{labelled}-py3-none-{platform}.whl"
    target.unlink(missing_ok=True)
    added = {f"{key}/{path.name}": path for key, folder in folders.items() for path in sorted(folder.iterdir())}
    with WheelFile(pure) as source, WheelFile(target, "w") as wheel:
        for entry in source.infolist():
            content = source.read(entry)
            folder, _, file = entry.filename.partition("/")
            if folder == f"{name}-{version}.dist-info":
                if file == "RECORD":  # written when the new wheel is closed
                    continue
                content = _metadata(file, content.decode(), labelled, minor, platform).encode()
                entry.filename = f"{name}-{labelled}.dist-info/{file}"
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
            date = entry.date_time
        for inside, path in {**added, **files}.items():
            entry = zipfile.ZipInfo(f"{LIBRARIES}/{inside}", date)
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return target


def _metadata(file, text, version, minor, platform):
    """Returns the text of a file with metadata, changed for the new wheel."""
    if file == "WHEEL":
        text = text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        return text.replace("Tag: py3-none-any", f"Tag: py3-none-{platform}")
    if file == "METADATA":
        text = re.sub("^Version: .*$", f"Version: {version}", text, count=1, flags=re.MULTILINE)
        if minor:
            text = EXTRAS.sub(rf'Requires-Dist: tensorflow\1=={minor}.*; extra == "\2"', text)
    return text
