# SPDX-License-Identifier: Apache-2.0
"""The one entry: checks, trace, write, validate, and only then the file takes its place."""

import contextlib
import importlib
import os
import pathlib
import platform
import shutil
import tempfile
import time

import keras_dynfilter
from keras_dynfilter.export import formats, ort_library, trace
from keras_dynfilter.export import signature as signature_module
from keras_dynfilter.export.report import Report, ValidationError
from keras_dynfilter.export.validation import compare
from keras_dynfilter.export.validation import inputs as inputs_module


def export(
    model,
    path,
    format="saved_model",
    ops="portable",
    validate=True,
    *,
    opset=None,
    precision=None,
    representative_data=None,
    input_size=None,
    input_signature=None,
    sample_inputs=None,
    task_data=None,
    task_metric=None,
    batch_sizes=inputs_module.BATCH_SIZES,
    image_sizes=inputs_module.IMAGE_SIZES,
    tolerance=None,
    seed=0,
    verbose=True,
):
    """Exports a Keras model, and proves that the file computes what the model computes.

    The model is traced anew on standard ops. The file is then loaded in a fresh process that holds only the runtime
    and NumPy, run on inputs of several sizes, and every output is compared with that of the model. A file that fails
    is removed; one that it was to replace stays.

    Args:
        model: A built `keras.Model`: functional, sequential or subclassed.
        path: File or folder to write. Its folder is made if it is missing.
        format: `"saved_model"`, `"onnx"` or `"litert"`.
        ops: `"portable"`: stock runtimes run the file; or `"native"`: the compiled ops stay in it. An ONNX file with
            native ops runs in stock onnxruntime too, and faster with the library of `ort_library`.
        validate: False skips the comparison.
        opset: ONNX opset, 15 to 18; by default the newest.
        precision: Of a LiteRT file: `"float32"` (the default), `"float16"`, `"dynamic_int8"` or `"int8"`.
        representative_data: Inputs as in `sample_inputs`, which the model will typically meet, for `"int8"`: the ranges
            of all values are taken from them.
        input_size: `(height, width)`, fixes them where the model leaves them open.
        input_signature: `tf.TensorSpec`s in the structure that the model takes (by argument, for a `call` with
            several): for subclassed models.
        sample_inputs: Inputs to compare beside the random ones: one dict by input name, or a list of samples, each a
            dict by name or in the structure that the model takes.
        task_data: Pairs `(inputs, targets)` of the task, such as batches of a `tf.data.Dataset`. They are compared
            too, so this needs `validate`.
        task_metric: Function of targets and outputs: a dict by name where the model has several, the tensor where it
            has one, even if the model returns that in a dict. The report has its mean over `task_data`, for the model
            and for the file.
        batch_sizes: Batch sizes to compare, where the batch is open.
        image_sizes: Pairs `(height, width)` to compare, where they are open. What the model refuses is left out.
        tolerance: Allowed difference relative to the largest magnitude of an output; by default from the dtypes.
        seed: Of the random inputs.
        verbose: Prints the report.

    Returns:
        A `Report`.

    Raises:
        ValueError: An argument is not as described, or the format does not support it.
        ImportError: A package that the format needs is missing.
        ExportError: The model cannot be exported so.
        ValidationError: The file was written and found wrong; its `report` says where.
    """
    row, opset = formats.choose(format, ops, opset)
    precision = formats.choose_precision(row, precision, representative_data)
    path = checked_path(path, row)
    signature = signature_module.of(model, input_signature, _checked_size(input_size), row.identifiers)
    batch_sizes, image_sizes = inputs_module.checked(batch_sizes, image_sizes, tolerance, seed)
    representative_data = inputs_module.representative(signature, representative_data)
    for name, given in (("task_data", task_data), ("sample_inputs", sample_inputs)):
        if given is not None and not validate:
            raise ValueError(f"Expected `validate` to be True with `{name}`, which is for it. Received: {validate!r}")
    task = inputs_module.task(signature, task_data, task_metric)
    if validate:
        cases = inputs_module.cases(signature, sample_inputs, batch_sizes, image_sizes, seed, representative_data)
        targets = None if task is None else {inputs_module.add(cases, inputs): wanted for inputs, wanted in task}
    options = {"precision": precision, "representative_data": representative_data} if row.precisions else {}
    seconds = {}
    with _timed(seconds, "trace"):
        traced = trace.trace(model, signature, ops)
    with _staged(path) as staged:
        with _timed(seconds, "write"):
            nodes = row.write(traced, staged, opset, **options)
        report = Report(
            path=str(path),
            format=format,
            ops=ops,
            opset=opset,
            precision=precision,
            inputs=traced.inputs,
            outputs=traced.outputs,
            nodes=nodes,
            bytes=_sizes(staged),
            versions=_versions(row),
            seconds=seconds,
        )
        if validate:
            with _timed(seconds, "validate"):
                sessions, notes = _sessions(row, traced)
                report.validation = compare.validate(
                    model,
                    traced,
                    staged,
                    row.runtime,
                    sessions,
                    cases,
                    tolerance,
                    notes=notes,
                    precision=precision,
                    targets=targets,
                    metric=task_metric,
                )
            if not report.passed:
                raise ValidationError(f"The exported file is wrong and was removed:\n{report}", report)
    if verbose:
        print(report)
    return report


def checked_path(path, row):
    """Returns `path` as a `pathlib.Path` to which a file or folder of the format can be written."""
    path = pathlib.Path(path)
    wrong = path.suffix != row.suffix if row.suffix else path.suffix in {other.suffix for other in _files()}
    if wrong:
        raise ValueError(f"Expected `path` to be a {row.kind} for {row.name}. Received: path={str(path)!r}")
    if row.suffix and path.is_dir():
        raise ValueError(f"Expected `path` to be a file. Received a folder: path={str(path)!r}")
    if not row.suffix and path.exists() and not (path / "saved_model.pb").is_file():
        raise ValueError(f"Expected `path` to be a new folder or a SavedModel to replace. Received: path={str(path)!r}")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"Expected `path` to lie in a folder that can be written. Received: path={str(path)!r}")
    return path


def _files():
    return [row for row in formats.FORMATS.values() if row.suffix]


def _checked_size(input_size):
    if input_size is None:
        return None
    size = tuple(input_size)
    if len(size) != 2 or not all(isinstance(value, int) and value > 0 for value in size):
        raise ValueError(f"Expected `input_size` to be (height, width). Received: input_size={input_size!r}")
    return size


@contextlib.contextmanager
def _staged(path):
    """A path beside `path`, that takes its place once the block is done: a file that was there is never lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        staged = folder / path.name
        yield staged
        replaced = folder / "replaced" if path.is_dir() else None
        if replaced is not None:
            path.rename(replaced)
        try:
            staged.replace(path)
        except OSError:
            if replaced is not None:
                replaced.rename(path)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _timed(seconds, stage):
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _sizes(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    return {str(file.relative_to(root)): file.stat().st_size for file in files if file.is_file()}


def _versions(row):
    packages = ("keras", "tensorflow", "numpy", *(name for name in row.modules if name != row.runtime))
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    return {"keras_dynfilter": keras_dynfilter.__version__, "python": platform.python_version(), **versions}


def _sessions(row, traced):
    """The ways to run the file: op libraries that a fresh process loads, by what describes it; and notes."""
    if not any(node.op.startswith("KerasDynfilter>") for node in traced.graph_nodes()):
        return {"": []}, []
    if row.runtime == "tensorflow":
        from keras_dynfilter.ops.backends import library

        return {"": list(library.load().paths)}, []
    try:
        return {"without our library": [], "with our library": [ort_library.ort_library()]}, []
    except RuntimeError as error:
        return {"without our library": []}, [f"our kernels were not validated, for their library is missing: {error}"]
