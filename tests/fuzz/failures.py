# SPDX-License-Identifier: Apache-2.0
"""Defines the kinds of failures, and decides whether the text of an error is clear."""

import contextlib
import re
import resource
from collections.abc import Iterable, Iterator

KINDS = {
    "crash": "a signal ended the process",
    "hang": "one input took more than the limit of processor time, or waited without end",
    "wrong value": "the result differs from the reference by more than rounding explains",
    "wrong decision": "a correct input was refused, or an incorrect input was accepted",
    "unclear text": "the error does not name the argument, what was expected and what was received",
    "memory growth": "the process keeps memory after its inputs",
}
FATAL = ("crash", "hang")  # the failures that end the process
FORM = re.compile(r"Expected.+Received", re.DOTALL)


class Failure(Exception):
    """Reports that the package handled an input wrongly.

    Args:
        kind: One of `KINDS`.
        text: What happened.
    """

    def __init__(self, kind: str, text: str):
        super().__init__(kind, text)
        self.kind, self.text = kind, text


class Skipped(Exception):
    """Reports that an input could not be made, for example because NumPy has no such array."""


def check_text(error: BaseException, names: Iterable[str], foreign: Iterable[str] = ()) -> None:
    """Raises a `Failure` if an error has no clear text.

    Args:
        error: The error.
        names: Names of arguments, one of which the text must contain.
        foreign: Patterns of the texts of TensorFlow, ONNX Runtime or Keras that are said before the code of this
            project runs.
    """
    text = str(error)
    if any(re.search(pattern, text, re.DOTALL) for pattern in foreign):
        return
    if not FORM.search(text):
        raise Failure("unclear text", f"{type(error).__name__}: {text}")
    if not any(re.search(rf"\b{re.escape(name)}\b", text) for name in names):
        raise Failure("unclear text", f"The text names no argument. {type(error).__name__}: {text}")


def signature(failure: dict) -> str:
    """Returns a text that is equal for failures that have probably the same cause: numbers and paths are left out."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\{\{.*?\}\}|/\S+|\[[^\]]*\]|0x[0-9a-f]+|[-+]?\d[\d.e+-]*", "#", failure["text"])
    # Python's stack is the same for all ops, so the input says which code a worker died in.
    place = failure["input"].get("op", "") if failure["kind"] in FATAL else ""
    return " ".join([failure["mode"], failure["kind"], place, text[:160]])


@contextlib.contextmanager
def unlimited_memory() -> Iterator[None]:
    """Lifts the limit of memory for what the target itself computes: TensorFlow may have kept all memory below it."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
