# SPDX-License-Identifier: Apache-2.0
"""Lists the sessions in which the validation runs a file: with or without the library of ops."""

import dataclasses

from keras_dynfilter.export import runtime_library
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.ops.backends import library
from keras_dynfilter.ops.backends.raw_ops import PREFIX


@dataclasses.dataclass(frozen=True)
class Session:
    """One way to run a file.

    Attributes:
        name: Distinguishes the sessions of one file; empty if there is only one.
        libraries: Paths of the op libraries that the runtime loads before it loads the file.
    """

    name: str
    libraries: tuple[str, ...]

    def label(self, text: str) -> str:
        """Returns a case name or a problem, followed by the name of the session."""
        return f"{text}, {self.name}" if self.name else text


def sessions(traced: Traced, runtime: str) -> tuple[list[Session], list[str]]:
    """Returns the sessions to compare with the model, and notes for the report about sessions that are not possible.

    A SavedModel with native ops runs only if their library is loaded. An ONNX file with native ops runs with or without
    their library, so it is compared in two sessions.
    """
    if not any(node.op.startswith(PREFIX) for node in traced.graph_nodes()):
        return [Session("", ())], []
    if runtime == "tensorflow":
        return [Session("", tuple(library.load().paths))], []
    without_library = Session("without the op library", ())
    try:
        return [without_library, Session("with the op library", (runtime_library.ort_library(),))], []
    except RuntimeError as error:
        return [without_library], [
            f"the compiled kernels were not validated, because their library is missing: {error}"
        ]
