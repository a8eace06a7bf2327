# SPDX-License-Identifier: Apache-2.0
"""Exports a network, runs the files where neither Keras nor keras_dynfilter is installed, and checks the results.

    python -m examples.deploy.run

The network predicts the next frame of a video. The script computes its predictions with Keras, makes environments that
hold a runtime and NumPy only, runs every runner of this folder in its environment, and prints a table of errors, sizes
and times. Without the highway video the frames are generated; without `--weights` the network is untrained.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

import keras_dynfilter
from examples.experiments import data
from keras_dynfilter import export, models
from keras_dynfilter.custom_ops import cache, ort_headers
from keras_dynfilter.export import formats
from keras_dynfilter.export.report import first_line
from keras_dynfilter.untrusted import hdf5

HERE = pathlib.Path(__file__).resolve().parent
CLIP = "highway_video/solidWhiteRight.mp4"
INPUT_FRAMES = 3  # frames that the network gets in each call
RESULTS = ("runtime", "ms", "max_abs", "passed", "importable")  # what a runner prints
# Packages of each environment.
ENVIRONMENTS = {
    "onnx": ["numpy", "onnxruntime>=1.18,<1.32"],
    "cuda": ["numpy", "onnxruntime-gpu[cuda,cudnn]>=1.18,<1.32"],
    "litert": ["numpy", "ai-edge-litert>=2.3,<2.4"],
    "tensorflow": ["numpy", f"tensorflow-cpu=={tf.__version__}"],
}
FILES = {
    "portable": ("model.onnx", dict(format="onnx")),
    "native": ("model_native.onnx", dict(format="onnx", ops="native")),
    "saved_model": ("saved_model", dict(format="saved_model")),
    "litert": ("model.tflite", dict(format="litert")),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: First column.
        runner: Name of the runner, a file in this folder.
        file: Key of `FILES`.
        environment: Key of `ENVIRONMENTS`.
        arguments: Further arguments of the runner. The path of the op library follows `--library`.
    """

    name: str
    runner: str
    file: str
    environment: str
    arguments: tuple[str, ...] = ()


ROWS = (
    Row("Python, standard ops", "onnx_runner.py", "portable", "onnx"),
    Row("Python, native ops, no op library", "onnx_runner.py", "native", "onnx"),
    Row("Python, native ops, op library", "onnx_runner.py", "native", "onnx", ("--library",)),
    Row("C++, native ops, no op library", "onnx_runner.cc", "native", "onnx"),
    Row("C++, native ops, op library", "onnx_runner.cc", "native", "onnx", ("--library",)),
    Row("Python on CUDA, standard ops", "onnx_runner.py", "portable", "cuda", ("--provider", "cuda")),
    Row("Python on CUDA, op library", "onnx_runner.py", "native", "cuda", ("--provider", "cuda", "--library")),
    Row("LiteRT, without TensorFlow", "litert_runner.py", "litert", "litert"),
    Row("SavedModel, as served", "saved_model_runner.py", "saved_model", "tensorflow"),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with a message if an argument is wrong."""
    parser = argparse.ArgumentParser(prog="python -m examples.deploy.run", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("outputs/deploy"), help="folder for all output")
    add("--data-dir", type=pathlib.Path, help="folder that contains highway_video")
    add("--weights", type=pathlib.Path, help="weights of dfn_highway without untied bias (default: random weights)")
    add("--width", type=float, default=0.25, help="factor of the network's channels (default: %(default)s)")
    add("--rows", type=int, default=64, help="height of the frames, divisible by 8 (default: %(default)s)")
    add("--calls", type=int, default=30, help="number of frames to predict, one per call (default: %(default)s)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each runtime (default: all)")
    add(
        "--only",
        nargs="+",
        choices=ENVIRONMENTS,
        default=["onnx", "litert", "tensorflow"],
        help="environments to run (default: all except cuda)",
    )
    add("--tensorflow-environment", action="store_true", help="make an environment for TensorFlow, too (1 GB)")
    args = parser.parse_args(arguments)
    for name in ("width", "calls", "threads"):
        if not 0 < getattr(args, name) < float("inf"):
            parser.error(f"Expected --{name} to be above zero. Received: {getattr(args, name)}")
    if args.rows < 16 or args.rows % 8:
        parser.error(f"Expected --rows to be divisible by 8 and at least 16. Received: {args.rows}")
    if args.weights is not None and not args.weights.is_file():
        parser.error(f"Expected --weights to be a file. Received: {args.weights}")
    return args


def frames(count: int, rows: int, data_dir: pathlib.Path | None = None) -> tuple[np.ndarray, str]:
    """Returns consecutive frames `[count, rows, columns]`, with columns divisible by 8, and their source."""
    path = data.find_data(CLIP, data_dir)
    if path is None:
        videos, *_ = data.synthetic_video(1, count, rows)
        return videos[0, ..., 0], "a generated video"
    clip = data.load_video(path, size=rows, limit=count)
    if len(clip) < count:
        max_calls = len(clip) - INPUT_FRAMES + 1
        raise ValueError(f"Expected --calls to be at most {max_calls}, because {path} has {len(clip)} frames")
    return clip[:, :, : clip.shape[2] // 8 * 8], CLIP


def prepare(args: argparse.Namespace, rows: Sequence[Row]) -> tuple[keras.Model, np.ndarray, str]:
    """Returns the network, its inputs `[calls, frames, rows, columns, 1]`, and the source of the inputs.

    Raises:
        ValueError, OSError, ImportError: Something that `rows` need is missing or wrong. The message names it.
    """
    for row in rows:
        formats.choose(FILES[row.file][1]["format"], "portable", None)
        if row.runner.endswith(".cc") and shutil.which("g++") is None:
            raise FileNotFoundError("Expected g++ for the C++ runner. Install it, or choose other runners with --only")
    args.out.mkdir(parents=True, exist_ok=True)
    clip, source = frames(args.calls + INPUT_FRAMES - 1, args.rows, args.data_dir)
    windows = [clip[start : start + INPUT_FRAMES, ..., None] for start in range(args.calls)]
    inputs = np.stack(windows).astype("float32")
    network = models.dfn_highway(inputs.shape[2:], INPUT_FRAMES, output_frames=1, width=args.width, untied_bias=False)
    if args.weights is not None:
        try:
            hdf5.check(args.weights, str(args.weights))
            network.load_weights(args.weights)
        except Exception as error:  # h5py and Keras raise exceptions of many classes
            # Keras lists every layer; the first line is enough.
            expected = f"Expected --weights to be weights of dfn_highway of --width {args.width:g} without untied bias"
            raise ValueError(f"{expected}. Received: {args.weights}: {first_line(error)}") from error
    return network, inputs, source


def reference(network: keras.Model, inputs: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the outputs of Keras, one call per input, and the median duration of a call in milliseconds."""
    call = tf.function(lambda array: network(array, training=False))
    call(tf.constant(inputs[:1]))
    results, times = [], []
    for index in range(len(inputs)):
        start = time.perf_counter()
        results.append(call(tf.constant(inputs[index : index + 1])).numpy())
        times.append(1e3 * (time.perf_counter() - start))
    return np.concatenate(results), statistics.median(times)


def environment(folder: pathlib.Path, packages: list[str]) -> pathlib.Path:
    """Returns the interpreter of a virtual environment that holds only `packages`; makes the environment once."""
    python, stamp = folder / "bin" / "python", folder / "packages.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == packages:
        return python
    print(f"  {folder}: {', '.join(packages)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("uv"):
        run("uv", "venv", "--quiet", "--python", sys.executable, folder)
        run("uv", "pip", "install", "--quiet", "--python", python, *packages)
    else:
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    stamp.write_text(json.dumps(packages))
    return python


def compile_runner(out: pathlib.Path, python: pathlib.Path) -> pathlib.Path:
    """Compiles the C++ runner against the onnxruntime of an environment and prints the command; returns its path."""
    folder = pathlib.Path(run(python, "-c", "import onnxruntime; print(onnxruntime.__file__)").strip()).parent
    (library,) = (folder / "capi").glob("libonnxruntime.so.*")
    # The program loads libonnxruntime.so.1, but the library in the wheel has its full version in its name.
    link = out / "libonnxruntime.so.1"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    headers = ort_headers.find_headers(cache.cache_folder(), print)
    program = out / "onnx_runner"
    command = ["g++", "-O2", "-std=c++17", HERE / "onnx_runner.cc", "-I", headers, link, "-Wl,-rpath,$ORIGIN"]
    command += ["-o", program]
    print("  " + " ".join(map(str, command)).replace("$ORIGIN", "'$ORIGIN'"), flush=True)
    run(*command)
    return program.absolute()


def run(*command: object, statuses: tuple[int, ...] = (0,)) -> str:
    """Runs a command without this package on its path; returns what it printed.

    Args:
        command: The program and its arguments.
        statuses: Exit statuses that are not failures. If 1 is one of them, a program that prints nothing has failed.

    Raises:
        RuntimeError: The command cannot be run or failed; the message ends with the last line that it printed.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run([*map(str, command)], env=inherited, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        raise RuntimeError(f"{pathlib.Path(str(command[0])).name} was ended by {ended}")
    if done.returncode not in statuses or (not done.stdout and 1 in statuses):
        last_line = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{pathlib.Path(str(command[0])).name} failed: {''.join(last_line)}")
    return done.stdout


def run_row(
    row: Row,
    args: argparse.Namespace,
    output: str,
    environments: dict[str, pathlib.Path],
    program: pathlib.Path | None,
    library: str | None,
) -> dict:
    """Runs a row and returns the values that the runner printed, also if its result differs from Keras.

    Raises:
        RuntimeError: The runner failed, or its last line is not the JSON that it should print.
    """
    files = [args.out / FILES[row.file][0], args.out / "inputs.npy", args.out / "expected.npy"]
    if row.runner.endswith(".cc"):
        libraries = [library] if "--library" in row.arguments else []
        command = [program, *files, output, args.threads, *libraries]
    else:
        arguments = [part for name in row.arguments for part in ((name, library) if name == "--library" else (name,))]
        command = [environments[row.environment], HERE / row.runner, *files, "--output", output]
        command += ["--threads", args.threads, *arguments]
    line = run(*command, statuses=(0, 1)).splitlines()[-1]
    try:
        printed = json.loads(line)
        return {name: printed[name] for name in RESULTS}
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"Expected {row.runner} to end with a line of JSON. Received: {line!r}") from error


def megabytes(path: pathlib.Path) -> float:
    """Returns the size of a file, or of all files in a folder, in megabytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def table(rows: list[dict], keras_ms: float) -> str:
    """Returns the results as a table."""
    lines = [f"{'':<36}{'runtime':<26}{'MB':>7}{'ms':>9}{'max error':>12}"]
    lines.append(f"{'Keras, compiled ops':<36}{'TensorFlow ' + tf.__version__:<26}{'':>7}{keras_ms:>9.2f}{'':>12}")
    for row in rows:
        if "problem" in row:
            lines.append(f"{row['name']:<36}{row['problem']}")
            continue
        verdict = "" if row["passed"] else "  DIFFERS FROM KERAS"
        importable = f"  ({', '.join(row['importable'])} could be imported)" if row["importable"] else ""
        numbers = f"{row['megabytes']:>7.2f}{row['ms']:>9.2f}{row['max_abs']:>12.1e}"
        lines.append(f"{row['name']:<36}{row['runtime']:<26}{numbers}{verdict}{importable}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script; returns 1 if a runner failed or its result differs from Keras, otherwise 0."""
    args = parse(arguments)
    rows = [row for row in ROWS if row.environment in args.only]
    try:
        network, inputs, source = prepare(args, rows)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")
    try:
        return deploy(args, rows, network, inputs, source)
    except RuntimeError as error:  # an export, an installation or a compilation failed
        sys.exit(f"{error}")


def deploy(args: argparse.Namespace, rows: Sequence[Row], network: keras.Model, inputs: np.ndarray, source: str) -> int:
    """Exports the network, runs the rows on its inputs, and prints and stores the results; returns the exit status."""
    print("== Export")
    for file in dict.fromkeys(row.file for row in rows):
        name, options = FILES[file]
        validation = export.Validation(batch_sizes=(1, 2))
        report = export.export(network, args.out / name, validate=validation, verbose=False, **options)
        (output,) = report.outputs
        error = max(check.max_abs for check in report.validation.outputs)
        print(f"  {name}: validated on {report.validation.runtime}, max error {error:.1e}", flush=True)
    size = f"{inputs.shape[2]} x {inputs.shape[3]}"
    print(f"== Keras: {args.calls} sequences of {INPUT_FRAMES} frames, {size}, from {source}")
    expected, keras_ms = reference(network, inputs)
    np.save(args.out / "inputs.npy", inputs)
    np.save(args.out / "expected.npy", expected)

    print("== Environments")
    names = [name for name in args.only if name != "tensorflow" or args.tensorflow_environment]
    environments = {name: environment(args.out / f"env_{name}", ENVIRONMENTS[name]) for name in names}
    environments.setdefault("tensorflow", sys.executable)
    program = compile_runner(args.out, environments["onnx"]) if "onnx" in args.only else None
    library = export.ort_library() if any("--library" in row.arguments for row in rows) else None

    print("== Runners")
    results = []
    for row in rows:
        try:
            result = run_row(row, args, output, environments, program, library)
        except RuntimeError as error:
            result = {"problem": str(error), "passed": False}
        results.append({"name": row.name, "megabytes": megabytes(args.out / FILES[row.file][0]), **result})
    weights = "untrained" if args.weights is None else str(args.weights)
    content = {
        "versions": {"python": platform.python_version(), "keras_dynfilter": keras_dynfilter.__version__},
        "sequence": source,
        "shape": inputs.shape,
        "weights": weights,
        "threads": args.threads,
        "keras_ms": keras_ms,
        "rows": results,
    }
    (args.out / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"\ndfn_highway, {weights}; milliseconds per call on {args.threads} threads\n{table(results, keras_ms)}")
    print(f"\nResults: {args.out / 'results.json'}")
    return 0 if all(row["passed"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
