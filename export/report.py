# SPDX-License-Identifier: Apache-2.0
"""Describes the result of an export: the written file, and how far its outputs differ from the model's outputs."""

import dataclasses
import json
import os
import pathlib
from typing import Any

Axes = list[int | str]  # the size of each axis, or a name if the axis is open


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or the name of its class if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# What a user can do about an op that a format lacks. The end of several errors.
WAY_OUT = (
    "Export to 'saved_model', or leave these layers out of the exported model and compute them outside of the file"
)


class ExportError(RuntimeError):
    """The model could not be exported; nothing was written."""


class ValidationError(ExportError):
    """The exported file does not compute what the model computes. The file was removed.

    Attributes:
        report: The `Report` with the results of the failed validation.
    """

    def __init__(self, message: str, report: "Report"):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass
class OutputCheck:
    """Comparison of one output over all cases.

    Attributes:
        name: Name of the output.
        dtype: Its dtype.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the largest magnitude of the model's output in the same case (relative
            to 1 if that output is zero everywhere).
        compared: Number of compared values in all cases. In floating-point outputs only finite values count.
        worst: The case with the largest relative difference. For outputs that are not floating-point, the last case
            with a difference.
        problem: Why the output failed; None if it passed.
    """

    name: str
    dtype: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    compared: int = 0
    worst: str | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the output passed in every case."""
        return self.problem is None


@dataclasses.dataclass
class TaskResult:
    """Scores of the model and of the file on the labelled data of a task.

    Attributes:
        metric: Name of the metric.
        samples: Number of samples.
        model: Mean of the metric for the Keras model.
        file: Mean of the metric for the file, by name of the session; the name is empty if there is only one session.
            A session is left out if it lacks an output or returns one of another shape.
    """

    metric: str
    samples: int
    model: float
    file: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ValidationResult:
    """Comparison of the file, run in a fresh process, with the Keras model, run in this process.

    Attributes:
        runtime: The runtime that ran the file, with its version.
        reference: How the model was run.
        tolerance: Largest allowed difference, relative to the largest magnitude of an output.
        reason: Why this tolerance applies.
        cases: Names of the compared cases: the shapes of their inputs.
        skipped: Cases that the model itself refused, with the first line of its error.
        outputs: One `OutputCheck` for every output.
        problems: Other failures: a crash, a missing output, an axis that is no longer open.
        notes: What was not validated, and why.
        seconds_per_run: Time of the fastest run of each case in the runtime, by name of the case.
        task: The `TaskResult`, if the validation had a task.
    """

    runtime: str
    reference: str
    tolerance: float
    reason: str
    cases: list[str]
    skipped: dict[str, str]
    outputs: list[OutputCheck]
    problems: list[str]
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds_per_run: dict[str, float] = dataclasses.field(default_factory=dict)
    task: TaskResult | None = None

    @property
    def passed(self) -> bool:
        """Whether every output passed and nothing else failed."""
        return not self.problems and bool(self.outputs) and all(output.passed for output in self.outputs)


@dataclasses.dataclass
class Report:
    """The result of an export. `print(report)` shows it, `to_json` stores it.

    Attributes:
        path: The file or folder that was written.
        format: Name of the format.
        ops: `"portable"` or `"native"`.
        opset: The ONNX opset; None for other formats.
        precision: The precision; None for formats that keep the dtypes of the model.
        inputs: Dtype and axes of every input by name. An axis is given by its size, or by a name if it is open.
        outputs: Dtype and axes of every output by name.
        nodes: Number of nodes of each op in the graph.
        bytes: Size of each file.
        versions: Versions of the packages involved.
        seconds: Duration of the stages `trace`, `write` and `validate`.
        validation: The `ValidationResult`; None if the validation was skipped.
    """

    path: str
    format: str
    ops: str
    opset: int | None
    precision: str | None
    inputs: dict[str, tuple[str, Axes]]
    outputs: dict[str, tuple[str, Axes]]
    nodes: dict[str, int]
    bytes: dict[str, int]
    versions: dict[str, str]
    seconds: dict[str, float]
    validation: ValidationResult | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the file passed the validation; None if the validation was skipped."""
        return None if self.validation is None else self.validation.passed

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a dict that JSON can represent."""
        content = dataclasses.asdict(self)
        content["passed"] = self.passed
        if self.validation is not None:
            content["validation"]["passed"] = self.validation.passed
            for check, output in zip(content["validation"]["outputs"], self.validation.outputs):
                check["passed"] = output.passed
        return content

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """Returns the report as JSON text. Also writes the text to the file `path`, if given."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text + "\n")
        return text

    def __str__(self) -> str:
        nodes = sorted(self.nodes.items(), key=lambda item: (-item[1], item[0]))
        most_frequent = ", ".join(f"{op} {count}" for op, count in nodes[:8])
        others = f" and {len(nodes) - 8} other ops" if len(nodes) > 8 else ""
        variant = "" if self.opset is None else f", opset {self.opset}"
        variant += "" if self.precision is None else f", {self.precision}"
        facts = {
            "file": f"{self.path} ({self.format}, {self.ops} ops{variant}), {sum(self.bytes.values()) / 1e6:.3f} MB",
            "inputs": _signature(self.inputs),
            "outputs": _signature(self.outputs),
            "nodes": f"{sum(self.nodes.values())}: {most_frequent}{others}",
            "seconds": ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items()),
            "versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
        }
        if self.validation is None:
            facts["validation"] = "skipped: the file may not load, or may differ from the model"
            return _aligned(facts)
        return f"{_aligned(facts)}\n{_validation(self.validation)}"


def _signature(tensors: dict[str, tuple[str, Axes]]) -> str:
    return ", ".join(f"{name} {dtype} [{', '.join(map(str, axes))}]" for name, (dtype, axes) in tensors.items())


def _aligned(facts: dict[str, str]) -> str:
    return "\n".join(f"{name:<11} {text}" for name, text in facts.items())


def _validation(validation: ValidationResult) -> str:
    facts = {
        "validated": f"{'passed' if validation.passed else 'FAILED'}, {validation.runtime} in a fresh process "
        f"against {validation.reference}",
        "cases": "; ".join(validation.cases) or "none",
    }
    if validation.skipped:
        facts["not run"] = f"{'; '.join(validation.skipped)}: the model itself refuses them"
    if validation.notes:
        facts["note"] = "; ".join(validation.notes)
    facts["tolerance"] = f"{validation.tolerance:.1e}, {validation.reason}"
    if validation.task is not None:
        facts["task"] = _task(validation.task)
    rows = [("output", "dtype", "max abs", "max rel", "worst case", "")]
    for check in validation.outputs:
        verdict = "ok" if check.passed else f"FAILED: {check.problem}"
        rows.append(
            (check.name, check.dtype, f"{check.max_abs:.2e}", f"{check.max_rel:.2e}", check.worst or "-", verdict)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([_aligned(facts), *(f"problem     {text}" for text in validation.problems), *lines])


def _task(task: TaskResult) -> str:
    scores = [f"model {task.model:.6g}"]
    for session, score in task.file.items():
        scores.append(f"file {session} {score:.6g}" if session else f"file {score:.6g}")
    if not task.file:
        scores.append("file not computed")
    return f"{task.metric} of {task.samples} samples: {'; '.join(scores)}"
