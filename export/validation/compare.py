# SPDX-License-Identifier: Apache-2.0
"""Compares an exported file, run in a fresh process, with the Keras model."""

import contextlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.export import dtypes
from keras_dynfilter.export.report import ExportError, OutputCheck, TaskResult, ValidationResult, first_line
from keras_dynfilter.export.signature import Signature
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.validation.inputs import Case
from keras_dynfilter.export.validation.sessions import Session, sessions
from keras_dynfilter.export.validation.settings import Task, Validation
from keras_dynfilter.ops.backends import library, scope

# Runtimes add in other orders than TensorFlow, so results may differ. The default tolerance is a number of roundings of
# the coarsest dtype in which the model computes, relative to the largest magnitude of an output.
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ALLOWED_ROUNDINGS = {"float64": 1e4, "float32": 8e2, "float16": 16, "bfloat16": 4}
ALLOWED_STEPS = {"dynamic_int8": 16, "int8": 32}  # of the 256 steps of 8-bit values


def validate(
    model: keras.Model,
    traced: Traced,
    file: pathlib.Path,
    runtime: str,
    cases: list[Case],
    settings: Validation,
    precision: str | None = None,
) -> ValidationResult:
    """Runs the file or folder `file` in a fresh process and compares every output with the output of the model.

    Args:
        model: The model that was exported.
        traced: The graph that the file was written from.
        file: The written file or folder.
        runtime: Name of the runtime, as in the `FORMATS` table.
        cases: The inputs to compare.
        settings: The settings of the validation.
        precision: The precision of the file; None if the format has no precisions.

    Raises:
        ExportError: The model itself refuses all cases, or a case of the task; or the metric of the task does not score
            the outputs of the model.
    """
    expected, skipped = _reference(model, traced.signature, cases)
    if not expected:
        name, reason = next(iter(skipped.items()))
        raise ExportError(
            "The model itself refuses all inputs of the validation: give `input_size`, or a `Validation` with "
            f"`image_sizes` or `sample_inputs` that suit the model. With {name}: {reason}"
        )
    for case in cases:
        if case.has_targets and case.name in skipped:
            raise ExportError(f"The model itself refuses data of the task: {case.name}: {skipped[case.name]}")
    cases = [case for case in cases if case.name in expected]
    all_sessions, notes = sessions(traced, runtime)
    tolerance, reason = _tolerance(traced, settings.tolerance, precision)
    result = ValidationResult(
        runtime=runtime,
        reference=f"the Keras model, eager, {_ops_of_reference()} ops",
        tolerance=tolerance,
        reason=reason,
        cases=[case.name for case in cases],
        skipped=skipped,
        outputs=[OutputCheck(name, dtype) for name, (dtype, _) in traced.outputs.items()],
        problems=[],
        notes=notes,
    )
    task = settings.task
    if task is not None:
        model_score, samples = _score(task, cases, traced.outputs, expected)
        result.task = TaskResult(task.name, samples, model_score)
    for session in all_sessions:
        outputs = _compare_session(result, traced, file, runtime, session, cases, expected)
        if task is None or result.task is None or outputs is None:
            continue
        if _has_all_outputs(cases, expected, outputs):
            try:
                result.task.file[session.name], _ = _score(task, cases, traced.outputs, outputs)
            except ExportError as error:
                result.problems.append(session.label(first_line(error)))
    if len(all_sessions) > 1 or all_sessions[0].name:
        result.runtime += f", {' and '.join(session.name for session in all_sessions)}"
    for check in result.outputs:
        if check.passed and not check.compared:
            check.problem = "no finite value was compared in any case"
    return result


def _compare_session(
    result: ValidationResult,
    traced: Traced,
    file: pathlib.Path,
    runtime: str,
    session: Session,
    cases: list[Case],
    expected: dict[str, dict[str, tf.Tensor]],
) -> dict[str, dict[str, np.ndarray]] | None:
    """Runs the cases in one session and adds the comparison to `result`.

    Returns the outputs by case and by name, or None if the runtime failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for index, case in enumerate(cases):
            np.savez(folder / f"inputs_{index}.npz", **case.inputs)  # type: ignore[arg-type]
        request = {"runtime": runtime, "path": str(file), "libraries": session.libraries, "cases": len(cases)}
        (folder / "request.json").write_text(json.dumps(request))
        problem = _run(folder / "request.json")
        if problem is not None:
            result.problems.append(session.label(problem))
            for check in result.outputs:
                check.problem = "not computed"
            return None
        answer = json.loads((folder / "result.json").read_text())
        result.runtime = answer["runtime"]
        result.seconds_per_run.update(
            {session.label(case.name): seconds for case, seconds in zip(cases, answer["seconds"])}
        )
        result.problems += [session.label(problem) for problem in _signature_problems(traced, answer)]
        outputs = {}
        for index, case in enumerate(cases):
            with np.load(folder / f"outputs_{index}.npz") as archive:
                outputs[case.name] = dict(archive)
            for check in result.outputs:
                received = outputs[case.name].get(check.name)
                _compare(check, expected[case.name][check.name], received, session.label(case.name), result.tolerance)
        return outputs


def _has_all_outputs(
    cases: list[Case], expected: dict[str, dict[str, tf.Tensor]], outputs: dict[str, dict[str, np.ndarray]]
) -> bool:
    """Returns whether the file returned every output of the model, in the right shape, in all cases of the task."""
    for case in cases:
        if case.has_targets:
            for name, value in expected[case.name].items():
                received = outputs[case.name].get(name)
                if received is None or received.shape != value.shape:
                    return False
    return True


def _score(task: Task, cases: list[Case], names: Iterable[str], outputs: dict[str, dict]) -> tuple[float, int]:
    """Returns the mean of the task's metric over all samples, and the number of samples.

    Args:
        task: The task.
        cases: All cases. Only cases with targets count.
        names: Names of the model's outputs. If there is only one, the metric receives a tensor instead of a dict.
        outputs: Outputs by case and by name.

    Raises:
        ExportError: The metric fails, or returns anything but numbers.
    """
    total, count = 0.0, 0
    for case in cases:
        if case.has_targets:
            tensors = {name: tf.convert_to_tensor(outputs[case.name][name]) for name in names}
            first = next(iter(tensors.values()))
            total += len(first) * _metric(task, case, tensors if len(tensors) > 1 else first)
            count += len(first)
    return total / count, count


def _metric(task: Task, case: Case, outputs: Any) -> float:
    """Returns the mean of the task's metric over the samples of one batch.

    Raises:
        ExportError: The metric fails, or returns anything but numbers.
    """
    where = f"the batch {case.name} of the task"
    try:
        values = task.metric(case.targets, outputs)
    except Exception as error:  # the metric is the caller's function
        raise ExportError(
            f"Expected `metric` {task.name} to score {where}. Received: {type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        scores = np.asarray(values, np.float64)
        score = float(scores.mean()) if scores.size else math.nan
    except (TypeError, ValueError):
        score = math.nan
    if values is None or isinstance(values, str) or math.isnan(score):
        expected = f"Expected `metric` {task.name} to return numbers, none of them NaN, for {where}"
        raise ExportError(f"{expected}. Received: {_described(values)}")
    return score


def _described(values: Any) -> str:
    """Returns a short text about what a metric returned."""
    text = " ".join(repr(values).split())
    return text if len(text) <= 100 else f"{text[:100]} ..."


def _reference(
    model: keras.Model, signature: Signature, cases: list[Case]
) -> tuple[dict[str, dict[str, tf.Tensor]], dict[str, str]]:
    """Returns the outputs of the model by case and by name, and the error of every case that the model refuses."""
    expected, skipped = {}, {}
    with _full_float32():
        for case in cases:
            tensors = {name: tf.cast(case.inputs[name], spec.dtype) for name, spec in signature.specs.items()}
            try:
                outputs = signature.call(model, tensors)
            except (MemoryError, tf.errors.ResourceExhaustedError) as error:
                raise ExportError(f"The model runs out of memory with {case.name}: {first_line(error)}") from error
            except Exception as error:  # layers raise exceptions of many classes
                skipped[case.name] = first_line(error)
                continue
            expected[case.name] = {name: tf.convert_to_tensor(value) for name, value in outputs.items()}
    return expected, skipped


def _ops_of_reference() -> str:
    """Returns `"native"` or `"no native"`. Does not load the library: a model without dynamic filters needs none."""
    loaded = library.loaded()
    native = scope.requested()[0] != "composite" and loaded is not None and loaded.ops is not None
    return "native" if native else "no native"


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Computes products in full float32. GPUs otherwise round the factors to TensorFloat-32, which has 10 bits."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


def _tolerance(traced: Traced, requested: float | None, precision: str | None) -> tuple[float, str]:
    """Returns the tolerance and the reason for it."""
    if requested is not None:
        return float(requested), "as requested"
    if precision in ALLOWED_STEPS:
        steps = ALLOWED_STEPS[precision]
        rounded = "weights" if precision == "dynamic_int8" else "weights and values"
        return steps / 256, f"{steps} of the 256 steps of 8 bits: {rounded} are rounded to them, layer after layer"
    if precision == "float16":
        roundings = ALLOWED_ROUNDINGS["float16"]
        return roundings * ROUNDING["float16"], f"{roundings} roundings of float16, which the weights are stored in"
    names = {dtype.name for dtype in traced.dtypes()} & set(ROUNDING) or {"float32"}
    coarsest = max(names, key=lambda name: ROUNDING[name])
    roundings = ALLOWED_ROUNDINGS[coarsest]
    reason = f"{roundings:g} roundings of {coarsest}, the coarsest dtype of the graph: runtimes add in other orders"
    return roundings * ROUNDING[coarsest], reason


def _run(request: pathlib.Path) -> str | None:
    """Runs the request in a fresh process. Returns the problem if the runtime failed, otherwise None."""
    script = pathlib.Path(__file__).with_name("runner.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    completed = subprocess.run(
        [sys.executable, str(script), str(request)], env=environment, capture_output=True, text=True, check=False
    )
    if completed.returncode < 0:
        return f"the runtime was ended by {signal.Signals(-completed.returncode).name}"
    if completed.returncode > 0:
        return f"the runtime failed: {(completed.stderr.strip().splitlines() or ['no message'])[-1]}"
    return None


def _signature_problems(traced: Traced, answer: dict) -> list[str]:
    """Returns how the declared inputs and outputs of the file differ from the inputs and outputs of the model."""
    problems = []
    shapes = {
        name: [None if isinstance(axis, str) else axis for axis in axes] for name, (_, axes) in traced.inputs.items()
    }
    for name, shape in shapes.items():
        declared = answer["inputs"].get(name)
        if declared != shape:
            problems.append(f"input {name} should have sizes {shape} (None: any); the file declares {declared}")
    extra = set(answer["inputs"]) - set(shapes)
    if extra:
        problems.append(f"the file has inputs that the model lacks: {', '.join(sorted(extra))}")
    if set(answer["outputs"]) != set(traced.outputs):
        problems.append(f"outputs should be {', '.join(traced.outputs)}; the file has {', '.join(answer['outputs'])}")
    return problems


def _compare(check: OutputCheck, expected: tf.Tensor, received: np.ndarray | None, case: str, tolerance: float) -> None:
    """Compares an output in one case and adds the result to `check`."""
    if received is None:
        check.problem = "the file lacks it"
        return
    expected = dtypes.storable(expected.numpy())
    if received.dtype != expected.dtype or received.shape != expected.shape:
        check.problem = f"{received.dtype} {received.shape} instead of {expected.dtype} {expected.shape} in case {case}"
        return
    if not dtypes.is_floating(expected.dtype):
        check.compared += expected.size
        wrong = np.count_nonzero(expected != received)
        if wrong:
            check.problem = f"{wrong} of {expected.size} values differ in case {case}"
            check.worst = case
        return
    finite = np.isfinite(expected)
    if (
        not np.array_equal(received[~finite], expected[~finite], equal_nan=True)
        or not np.isfinite(received[finite]).all()
    ):
        check.problem = f"Inf and NaN are not where the model has them in case {case}"
        return
    check.compared += int(finite.sum())
    if not finite.any():
        return
    expected, received = expected[finite].astype(np.float64), received[finite].astype(np.float64)
    difference = float(np.abs(received - expected).max())
    relative = difference / (float(np.abs(expected).max()) or 1.0)
    check.max_abs = max(check.max_abs, difference)
    if check.worst is None or relative > check.max_rel:
        check.max_rel, check.worst = relative, case
    if relative > tolerance:
        check.problem = f"relative difference above {tolerance:.1e}"
