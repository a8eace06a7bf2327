# SPDX-License-Identifier: Apache-2.0
"""What an export returns: what was written, and how far it is from the Keras model."""

import dataclasses
import json
import pathlib


def first_line(error):
    """What an exception says, in one line: the name of its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class ExportError(RuntimeError):
    """The model could not be exported; nothing was written."""


class ValidationError(ExportError):
    """The exported file does not compute what the model computes; it was removed.

    Attributes:
        report: The `Report`, with the figures of the failed validation.
    """

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass
class OutputCheck:
    """One output, compared over all cases.

    Attributes:
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the largest magnitude that the model's output has in the same case (to 1
            if it is zero everywhere).
        compared: How many values were compared, in all cases together; of floating-point outputs, the finite ones.
        worst: The case in which `max_rel` was found.
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
    def passed(self):
        return self.problem is None


@dataclasses.dataclass
class TaskError:
    """What the model and the file are worth on data of the task.

    Attributes:
        metric: Its name.
        samples: How many were computed.
        model: Its mean for the Keras model.
        file: Its mean for the file, by what describes a way to run it (empty if there is one way only). Left out where
            the file lacks an output, or has one in another shape.
    """

    metric: str
    samples: int
    model: float
    file: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Validation:
    """The comparison of the file, run in a fresh process, with the Keras model in this one.

    Attributes:
        runtime: What ran the file, with its version.
        reference: What ran the model.
        tolerance: Allowed difference relative to the largest magnitude of an output.
        reason: Why that much.
        cases: Input shapes of the compared runs, as text.
        skipped: Input shapes that the model itself refused, with its reason.
        outputs: A check for every output.
        problems: What else is wrong: a crash, a missing output, an axis that became static.
        notes: What was not validated, and why.
        seconds_per_run: Time of the fastest run of each case in the runtime.
        task: The `TaskError`, where a data set was given.
    """

    runtime: str
    reference: str
    tolerance: float
    reason: str
    cases: list
    skipped: dict
    outputs: list
    problems: list
    notes: list = dataclasses.field(default_factory=list)
    seconds_per_run: dict = dataclasses.field(default_factory=dict)
    task: TaskError | None = None

    @property
    def passed(self):
        return not self.problems and bool(self.outputs) and all(output.passed for output in self.outputs)


@dataclasses.dataclass
class Report:
    """The result of an export. `print(report)` shows it; `to_json` stores it.

    Attributes:
        inputs, outputs: By name: dtype and sizes; a name in place of a size is an axis of any size.
        nodes: How many nodes of each op the graph has.
        bytes: Size of each file.
        precision: Of a format that has several, otherwise None.
        versions: Of the packages that took part.
        seconds: Of each stage.
        validation: None if the validation was skipped.
    """

    path: str
    format: str
    ops: str
    opset: int | None
    precision: str | None
    inputs: dict
    outputs: dict
    nodes: dict
    bytes: dict
    versions: dict
    seconds: dict
    validation: Validation | None = None

    @property
    def passed(self):
        """True or False as the validation found; None if it was skipped."""
        return None if self.validation is None else self.validation.passed

    def to_dict(self):
        content = dataclasses.asdict(self)
        content["passed"] = self.passed
        if self.validation is not None:
            content["validation"]["passed"] = self.validation.passed
            for check, output in zip(content["validation"]["outputs"], self.validation.outputs):
                check["passed"] = output.passed
        return content

    def to_json(self, path=None):
        """Returns the report as JSON text, written to `path` as well if one is given."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text + "\n")
        return text

    def __str__(self):
        nodes = sorted(self.nodes.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{op} {count}" for op, count in nodes[:8])
        opset = "" if self.opset is None else f", opset {self.opset}"
        opset += "" if self.precision is None else f", {self.precision}"
        rest = f" and {len(nodes) - 8} other ops" if len(nodes) > 8 else ""
        facts = {
            "file": f"{self.path} ({self.format}, {self.ops} ops{opset}), {sum(self.bytes.values()) / 1e6:.3f} MB",
            "inputs": _signature(self.inputs),
            "outputs": _signature(self.outputs),
            "nodes": f"{sum(self.nodes.values())}: {shown}{rest}",
            "seconds": ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
            "versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
        }
        if self.validation is None:
            facts["validation"] = "skipped: nothing is known of what the file computes, or whether it loads"
            return _aligned(facts)
        return f"{_aligned(facts)}\n{_validation(self.validation)}"


def _signature(tensors):
    return ", ".join(f"{name} {dtype} [{', '.join(map(str, shape))}]" for name, (dtype, shape) in tensors.items())


def _aligned(facts):
    return "\n".join(f"{name:<11} {text}" for name, text in facts.items())


def _validation(validation):
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
        task = validation.task
        found = "; ".join(f"{value:.6g} of the file{which}" for which, value in task.file.items()) or "none of the file"
        facts["task"] = f"{task.metric} of {task.samples} samples: {task.model:.6g} of the model; {found}"
    rows = [("output", "dtype", "max abs", "max rel", "worst case", "")]
    for check in validation.outputs:
        verdict = "ok" if check.passed else f"FAILED: {check.problem}"
        rows.append(
            (check.name, check.dtype, f"{check.max_abs:.2e}", f"{check.max_rel:.2e}", check.worst or "-", verdict)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([_aligned(facts), *(f"problem     {text}" for text in validation.problems), *lines])
