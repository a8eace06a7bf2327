# SPDX-License-Identifier: Apache-2.0
"""Lists the ways in which the validation has to run a file."""

import dataclasses

from keras_dynfilter.export import runtime_library
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.ops.backends import library


@dataclasses.dataclass(frozen=True)
class Session:
    """One way to run a file.

    Attributes:
        name: Tells the session from the others of the same file; empty if there is only one.
        libraries: Paths of the op libraries that the runtime loads before it loads the file.
    """

    name: str
    libraries: tuple[str, ...]

    def case(self, name: str) -> str:
        """Returns the name of a case in this session."""
        return f"{name}, {self.name}" if self.name else name


def sessions(traced: Traced, runtime: str) -> tuple[list[Session], list[str]]:
    """Returns the sessions to compare with the model, and notes for the report on sessions that are not possible.

    A SavedModel with native ops runs only where their library is loaded. An ONNX file with native ops runs without a
    library, too, so both ways are compared.
    """
    if not any(node.op.startswith("KerasDynfilter>") for node in traced.graph_nodes()):
        return [Session("", ())], []
    if runtime == "tensorflow":
        return [Session("", tuple(library.load().paths))], []
    without = Session("without the op library", ())
    try:
        return [without, Session("with the op library", (runtime_library.ort_library(),))], []
    except RuntimeError as error:
        return [without], [f"the compiled kernels were not validated, because their library is missing: {error}"]
