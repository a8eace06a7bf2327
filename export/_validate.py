# SPDX-License-Identifier: Apache-2.0
"""Compares an exported file, run in a fresh process, with the Keras model."""

import contextlib
import json
import math
import numbers
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_dynfilter.export import _signature
from keras_dynfilter.export.report import ExportError, OutputCheck, Validation
from keras_dynfilter.ops import _dispatch, _library

BATCH_SIZES = (1, 2, 5)
IMAGE_SIZES = ((32, 32), (33, 47), (7, 5), (64, 96))  # odd, smaller than many windows, divisible by much
OTHER_SIZES = {"length": 9, "frames": 4}
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ALLOWED_ROUNDINGS = {"float64": 1e4, "float32": 8e2, "float16": 16, "bfloat16": 4}


def checked(batch_sizes, image_sizes, tolerance, seed):
    """Returns `batch_sizes` and `image_sizes` as tuples; raises a ValueError that names what is not as described."""
    batches, images = _tuple(batch_sizes), tuple(_tuple(size) for size in _tuple(image_sizes))
    if not batches or not all(map(_is_size, batches)):
        raise ValueError(f"Expected `batch_sizes` to be integers above zero. Received: batch_sizes={batch_sizes!r}")
    if not images or not all(len(size) == 2 and all(map(_is_size, size)) for size in images):
        raise ValueError(
            "Expected `image_sizes` to be pairs (height, width) of integers above zero. "
            f"Received: image_sizes={image_sizes!r}"
        )
    if tolerance is not None and not (
        isinstance(tolerance, numbers.Real) and math.isfinite(tolerance) and tolerance >= 0
    ):
        raise ValueError(
            f"Expected `tolerance` to be None or a number not below zero. Received: tolerance={tolerance!r}"
        )
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"Expected `seed` to be an integer not below zero. Received: seed={seed!r}")
    return batches, images


def _tuple(values):
    return tuple(values) if isinstance(values, Iterable) else ()


def _is_size(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0


def cases(signature, sample_inputs, batch_sizes, image_sizes, seed):
    """Arrays by name, in a dict by what describes them: every batch size and every image size at least once."""
    image_sizes = image_sizes if _has_open_image(signature) else [None]
    batch_sizes = batch_sizes if all(spec.shape[0] is None for spec in signature.specs.values()) else [None]
    count = max(len(batch_sizes), len(image_sizes))
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        batch, size = batch_sizes[index % len(batch_sizes)], image_sizes[index % len(image_sizes)]
        found.append({name: _random(spec, batch, size, rng) for name, spec in signature.specs.items()})
    if sample_inputs is not None:
        samples = sample_inputs if isinstance(sample_inputs, (list, tuple)) else [sample_inputs]
        found.extend(signature.sample(sample) for sample in samples)
    described = {}
    for arrays in found:
        text = ", ".join("x".join(map(str, array.shape)) for array in arrays.values())
        text = f"{len(described)}: {text}" if text in described else text
        described[text] = arrays
    return described


def validate(model, traced, artifact, runtime, sessions, cases, tolerance, notes=()):
    """Returns a `Validation` of the file or folder `artifact`.

    Args:
        sessions: By what describes a way to run the file (empty if there is one way only): the op libraries it loads.
        notes: What the reader of the report should know beside.
    """
    expected, skipped = _reference(model, traced.signature, cases)
    if not expected:
        text, reason = next(iter(skipped.items()))
        raise ExportError(
            "The model itself refuses all inputs of the validation: give `input_size`, `image_sizes` or "
            f"`sample_inputs` that suit it. With {text}: {reason}"
        )
    tolerance, reason = _tolerance(traced, tolerance)
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
    for session, libraries in sessions.items():
        request = {"runtime": runtime, "path": str(artifact), "libraries": libraries, "cases": len(expected)}
        _compare_session(validation, traced, request, f", {session}" if session else "", expected, cases)
    if any(sessions):
        validation.runtime += f", {' and '.join(sessions)}"
    for check in validation.outputs:
        if check.passed and not check.compared:
            check.problem = "no finite value was compared in any case"
    return validation


def _compare_session(validation, traced, request, which, expected, cases):
    """Runs the request, and adds what it finds to `validation`; `which` is added to the names of the cases."""
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
            return
        result = json.loads((folder / "result.json").read_text())
        validation.runtime = result["runtime"]
        validation.seconds_per_run.update({text + which: time for text, time in zip(expected, result["seconds"])})
        validation.problems += [problem + which for problem in _structure(traced, result)]
        for index, (text, outputs) in enumerate(expected.items()):
            with np.load(folder / f"outputs_{index}.npz") as found:
                for check in validation.outputs:
                    _compare(check, outputs[check.name], found.get(check.name), text + which, validation.tolerance)


def _has_open_image(signature):
    shapes = [spec.shape.as_list() for spec in signature.specs.values()]
    named = [(size, name) for shape in shapes for size, name in zip(shape, _signature.axis_names(shape))]
    return any(size is None and name in ("height", "width") for size, name in named)


def _random(spec, batch, size, rng):
    sizes = {"batch": batch, **OTHER_SIZES}
    if size is not None:
        sizes["height"], sizes["width"] = size
    shape = spec.shape.as_list()
    shape = [sizes.get(name, 4) if given is None else given for given, name in zip(shape, _signature.axis_names(shape))]
    if spec.dtype.is_floating:
        return rng.standard_normal(shape).astype(_stored(spec.dtype))
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return rng.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(spec.dtype.as_numpy_dtype)
    raise ExportError(f"Random inputs of dtype {spec.dtype.name} cannot be made. Input: {spec.name}")


def _stored(dtype):
    return np.float32 if dtype == tf.bfloat16 else dtype.as_numpy_dtype


def _reference(model, signature, cases):
    """Outputs of the model by case, and the reason for each case that it refuses."""
    expected, skipped = {}, {}
    with _full_float32():
        for text, arrays in cases.items():
            tensors = {name: tf.cast(arrays[name], spec.dtype) for name, spec in signature.specs.items()}
            try:
                outputs = signature.call(model, tensors)
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                skipped[text] = str(error).strip().splitlines()[0]
                continue
            expected[text] = {name: tf.convert_to_tensor(value) for name, value in outputs.items()}
    return expected, skipped


def _implementation():
    """What the reference ran on. A model without dynamic filters loads no library, and none is built to say so."""
    loaded = _library._loaded
    native = _dispatch.requested()[0] != "composite" and loaded is not None and loaded.ops is not None
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


def _tolerance(traced, given):
    if given is not None:
        return float(given), "as asked for"
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
