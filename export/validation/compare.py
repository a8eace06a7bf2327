# SPDX-License-Identifier: Apache-2.0
"""Compares an exported file, run in a fresh process, with the Keras model."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from keras_dynfilter.export.report import ExportError, OutputCheck, TaskError, Validation, first_line
from keras_dynfilter.ops.backends import library, scope

ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ALLOWED_ROUNDINGS = {"float64": 1e4, "float32": 8e2, "float16": 16, "bfloat16": 4}
ALLOWED_STEPS = {"dynamic_int8": 16, "int8": 32}  # of 256 over the range of an output


def validate(
    model, traced, artifact, runtime, sessions, cases, tolerance, notes=(), precision=None, targets=None, metric=None
):
    """Returns a `Validation` of the file or folder `artifact`.

    Args:
        sessions: By what describes a way to run the file (empty if there is one way only): the op libraries it loads.
        notes: What the reader of the report should know beside.
        precision: That of the file, if its format has several.
        targets: Of the cases that are data of the task, by what describes them.
        metric: Of targets and outputs.
    """
    expected, skipped = _reference(model, traced.signature, cases)
    if not expected:
        text, reason = next(iter(skipped.items()))
        raise ExportError(
            "The model itself refuses all inputs of the validation: give `input_size`, `image_sizes` or "
            f"`sample_inputs` that suit it. With {text}: {reason}"
        )
    tolerance, reason = _tolerance(traced, tolerance, precision)
    validation = Validation(
        runtime=runtime,
        reference=f"the Keras model, eager, {_implementation()} ops",
        tolerance=tolerance,
        reason=reason,
        cases=list(expected),
        skipped=skipped,
        outputs=[OutputCheck(name, dtype) for name, (dtype, _) in traced.outputs.items()],
        problems=[],
        notes=list(notes),
    )
    if targets is not None:
        if not set(targets) <= set(expected):
            raise ExportError(f"The model itself refuses `task_data`: {next(iter(set(targets) - set(expected)))}")
        model_mean, samples = _mean(metric, targets, traced.outputs, expected)
        name = getattr(metric, "__name__", type(metric).__name__)
        validation.task = TaskError(name, samples, model_mean)
    for session, libraries in sessions.items():
        request = {"runtime": runtime, "path": str(artifact), "libraries": libraries, "cases": len(expected)}
        which = f", {session}" if session else ""
        found = _compare_session(validation, traced, request, which, expected, cases)
        if found is not None and targets is not None and _complete(targets, expected, found):
            validation.task.file[which], _ = _mean(metric, targets, traced.outputs, found)
    if any(sessions):
        validation.runtime += f", {' and '.join(sessions)}"
    for check in validation.outputs:
        if check.passed and not check.compared:
            check.problem = "no finite value was compared in any case"
    return validation


def _compare_session(validation, traced, request, which, expected, cases):
    """Runs the request, and adds what it finds to `validation`; `which` is added to the names of the cases.

    Returns:
        The outputs by case, or None if there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for index, text in enumerate(expected):
            np.savez(folder / f"inputs_{index}.npz", **cases[text])
        (folder / "request.json").write_text(json.dumps(request))
        crash = _run(folder / "request.json")
        if crash is not None:
            validation.problems.append(crash + which)
            for check in validation.outputs:
                check.problem = "not computed"
            return None
        result = json.loads((folder / "result.json").read_text())
        validation.runtime = result["runtime"]
        validation.seconds_per_run.update({text + which: time for text, time in zip(expected, result["seconds"])})
        validation.problems += [problem + which for problem in _structure(traced, result)]
        outputs = {}
        for index, text in enumerate(expected):
            with np.load(folder / f"outputs_{index}.npz") as archive:
                outputs[text] = dict(archive)
            for check in validation.outputs:
                found = outputs[text].get(check.name)
                _compare(check, expected[text][check.name], found, text + which, validation.tolerance)
        return outputs


def _complete(targets, expected, found):
    """Whether a file has all outputs of the model, in their shapes, for all data of the task."""
    pairs = [(value, found[text].get(name)) for text in targets for name, value in expected[text].items()]
    return all(other is not None and other.shape == value.shape for value, other in pairs)


def _mean(metric, targets, names, outputs):
    """The mean of the metric over the samples, and their number.

    Args:
        metric: Of targets and outputs.
        targets: By case.
        names: Of the outputs of the model; the metric gets an only one without its name.
        outputs: By name, by case.
    """
    total, count = 0.0, 0
    for text, wanted in targets.items():
        found = {name: tf.convert_to_tensor(outputs[text][name]) for name in names}
        first = next(iter(found.values()))
        value, samples = metric(wanted, found if len(found) > 1 else first), len(first)
        total, count = total + samples * float(np.mean(np.asarray(value))), count + samples
    return total / count, count


def _reference(model, signature, cases):
    """Outputs of the model by case, and the reason for each case that it refuses."""
    expected, skipped = {}, {}
    with _full_float32():
        for text, arrays in cases.items():
            tensors = {name: tf.cast(arrays[name], spec.dtype) for name, spec in signature.specs.items()}
            try:
                outputs = signature.call(model, tensors)
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                skipped[text] = first_line(error)
                continue
            expected[text] = {name: tf.convert_to_tensor(value) for name, value in outputs.items()}
    return expected, skipped


def _implementation():
    """What the reference ran on. A model without dynamic filters loads no library, and none is built to say so."""
    loaded = library._loaded
    native = scope.requested()[0] != "composite" and loaded is not None and loaded.ops is not None
    return "native" if native else "no native"


@contextlib.contextmanager
def _full_float32():
    """Keeps GPUs from rounding the factors of convolutions to 10 bits while the reference is computed."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


def _tolerance(traced, given, precision):
    if given is not None:
        return float(given), "as asked for"
    if precision in ALLOWED_STEPS:
        steps = ALLOWED_STEPS[precision]
        what = "weights" if precision == "dynamic_int8" else "weights and values"
        return steps / 256, f"{steps} steps of the 256 that 8 bits have: {what} are rounded to them, layer after layer"
    if precision == "float16":
        roundings = ALLOWED_ROUNDINGS["float16"]
        return roundings * ROUNDING["float16"], f"{roundings} roundings of float16, which the weights are stored in"
    names = {dtype.name for dtype in traced.dtypes()} & set(ROUNDING) or {"float32"}
    coarsest = max(names, key=ROUNDING.get)
    roundings = ALLOWED_ROUNDINGS[coarsest]
    reason = f"{roundings:g} roundings of {coarsest}, the coarsest type of the graph: the runtimes add in other orders"
    return roundings * ROUNDING[coarsest], reason


def _run(request):
    """Runs the request in a fresh process; returns what went wrong, or None."""
    script = pathlib.Path(__file__).with_name("_runner.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, str(script), str(request)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode < 0:
        return f"the runtime was killed by signal {-done.returncode}"
    if done.returncode > 0:
        return f"the runtime failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    return None


def _structure(traced, result):
    """What differs between the declared inputs and outputs of the file and those of the model."""
    problems = []
    wanted = {name: [None if isinstance(a, str) else a for a in axes] for name, (_, axes) in traced.inputs.items()}
    for name, shape in wanted.items():
        found = result["inputs"].get(name)
        if found != shape:
            problems.append(f"input {name} should have sizes {shape} (None: any); the file declares {found}")
    extra = set(result["inputs"]) - set(wanted)
    if extra:
        problems.append(f"the file asks for inputs that the model lacks: {', '.join(sorted(extra))}")
    if set(result["outputs"]) != set(traced.outputs):
        problems.append(f"outputs should be {', '.join(traced.outputs)}; the file has {', '.join(result['outputs'])}")
    return problems


def _compare(check, expected, found, case, tolerance):
    """Adds one case to the check of an output."""
    if found is None:
        check.problem = "the file lacks it"
        return
    expected = expected.numpy() if expected.dtype != tf.bfloat16 else tf.cast(expected, tf.float32).numpy()
    if found.dtype != expected.dtype or found.shape != expected.shape:
        check.problem = f"{found.dtype} {found.shape} in place of {expected.dtype} {expected.shape} in case {case}"
        return
    if not np.issubdtype(expected.dtype, np.floating):
        check.compared += expected.size
        wrong = np.count_nonzero(expected != found)
        if wrong:
            check.problem = f"{wrong} of {expected.size} values differ in case {case}"
            check.worst = case
        return
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        check.problem = f"Inf and NaN are not where the model has them in case {case}"
        return
    check.compared += int(finite.sum())
    if not finite.any():
        return
    expected, found = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    difference = float(np.abs(found - expected).max())
    relative = difference / (float(np.abs(expected).max()) or 1.0)
    check.max_abs = max(check.max_abs, difference)
    if check.worst is None or relative > check.max_rel:
        check.max_rel, check.worst = relative, case
    if relative > tolerance:
        check.problem = f"relative difference above {tolerance:.1e}"
