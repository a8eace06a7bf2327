# SPDX-License-Identifier: Apache-2.0
"""Shows a network of this package at work where neither it nor Keras is: exports, runs and checks it, in one command.

    python examples/deploy/run.py

Exports a network that predicts the next frame of a video, computes what Keras makes of a real image sequence, makes
environments that hold a runtime and NumPy only, runs every runner beside this file there, and prints a table. Without
the highway video (docs/guide/data.md) the sequence is a generated one; without `--weights` the network is untrained.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

import keras_dynfilter
from examples.experiments import data
from keras_dynfilter import export, models
from keras_dynfilter.custom_ops import build, ort_headers
from keras_dynfilter.export import formats

HERE = pathlib.Path(__file__).resolve().parent
CLIP = "highway_video/solidWhiteRight.mp4"
GIVEN = 3  # frames that a call gets
FOUND = ("runtime", "ms", "max_abs", "passed", "foreign")  # what a runner prints
# What is installed into each environment.
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
    """A line of the table: a runner, the file it runs, where, and with which further arguments."""

    name: str
    runner: str
    file: str
    environment: str
    arguments: tuple = ()


ROWS_OF_TABLE = (
    Row("Python, standard ops", "onnx_runner.py", "portable", "onnx"),
    Row("Python, native ops, no library", "onnx_runner.py", "native", "onnx"),
    Row("Python, native ops, our library", "onnx_runner.py", "native", "onnx", ("--library",)),
    Row("C++, native ops, no library", "onnx_runner.cc", "native", "onnx"),
    Row("C++, native ops, our library", "onnx_runner.cc", "native", "onnx", ("--library",)),
    Row("Python on CUDA, standard ops", "onnx_runner.py", "portable", "cuda", ("--provider", "cuda")),
    Row("Python on CUDA, our library", "onnx_runner.py", "native", "cuda", ("--provider", "cuda", "--library")),
    Row("LiteRT, without TensorFlow", "litert_runner.py", "litert", "litert"),
    Row("SavedModel, as served", "saved_model_runner.py", "saved_model", "tensorflow"),
)


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("outputs/deploy"), help="folder of all that is made")
    add("--data-dir", type=pathlib.Path, help="folder that holds highway_video")
    add("--weights", type=pathlib.Path, help="of dfn_highway without untied bias, in place of random ones")
    add("--width", type=float, default=0.25, help="factor of the network's channels")
    add("--rows", type=int, default=64, help="of the frames, divisible by 8")
    add("--calls", type=int, default=30, help="frames that are predicted, one after the other")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--only", nargs="+", choices=ENVIRONMENTS, default=["onnx", "litert", "tensorflow"], help="environments")
    add("--tensorflow-environment", action="store_true", help="TensorFlow too in an environment of its own (1 GB)")
    args = parser.parse_args(arguments)
    for name in ("width", "calls", "threads"):
        if not 0 < getattr(args, name) < float("inf"):
            parser.error(f"Expected --{name} to be above zero. Received: {getattr(args, name)}")
    if args.rows < 16 or args.rows % 8:
        parser.error(f"Expected --rows to be divisible by 8, and 16 at least. Received: {args.rows}")
    if args.weights is not None and not args.weights.is_file():
        parser.error(f"Expected --weights to be a file. Received: {args.weights}")
    return args


def frames(count, rows, data_dir=None):
    """`[count, rows, columns]`: frames in a row, of sizes that the network can halve; and where they are from."""
    path = data.find_data(CLIP, data_dir)
    if path is None:
        videos, *_ = data.synthetic_video(1, count, rows)
        return videos[0, ..., 0], "a generated video"
    clip = data.load_video(path, size=rows, limit=count)
    if len(clip) < count:
        raise ValueError(f"Expected --calls to be {len(clip) - GIVEN + 1} at most, for {path} has {len(clip)} frames")
    return clip[:, :, : clip.shape[2] // 8 * 8], CLIP


def prepared(args, rows):
    """The network, its inputs `[calls, frames, rows, columns, 1]`, and where they are from.

    Raises:
        ValueError, OSError, ImportError: Something that `rows` need is missing or wrong; the message says what.
    """
    for row in rows:
        formats.choose(FILES[row.file][1]["format"], "portable", None)
        if row.runner.endswith(".cc") and shutil.which("g++") is None:
            raise FileNotFoundError("Expected g++ for the runner in C++. Install it, or choose others by --only")
    args.out.mkdir(parents=True, exist_ok=True)
    clip, source = frames(args.calls + GIVEN - 1, args.rows, args.data_dir)
    inputs = np.stack([clip[start : start + GIVEN, ..., None] for start in range(args.calls)]).astype("float32")
    network = models.dfn_highway(inputs.shape[2:], GIVEN, output_frames=1, width=args.width, untied_bias=False)
    if args.weights is not None:
        try:
            network.load_weights(args.weights)
        except (OSError, ValueError) as error:  # Keras lists every layer
            expected = f"Expected --weights to be those of dfn_highway of --width {args.width:g} without untied bias"
            raise ValueError(f"{expected}. Received: {args.weights}: {str(error).splitlines()[0]}") from error
    return network, inputs, source


def reference(network, inputs):
    """What Keras makes of the inputs, one call after the other, and milliseconds of a call."""
    call = tf.function(lambda array: network(array, training=False))
    call(tf.constant(inputs[:1]))
    results, times = [], []
    for index in range(len(inputs)):
        start = time.perf_counter()
        results.append(call(tf.constant(inputs[index : index + 1])).numpy())
        times.append(1e3 * (time.perf_counter() - start))
    return np.concatenate(results), statistics.median(times)


def environment(folder, packages):
    """The interpreter of a virtual environment that holds `packages` only; makes it where it is not there yet."""
    python, made = folder / "bin" / "python", folder / "packages.json"
    if made.is_file() and json.loads(made.read_text()) == packages:
        return python
    print(f"  {folder}: {', '.join(packages)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("uv"):
        run("uv", "venv", "--quiet", "--python", sys.executable, folder)
        run("uv", "pip", "install", "--quiet", "--python", python, *packages)
    else:
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    made.write_text(json.dumps(packages))
    return python


def compiled(out, python):
    """Compiles the C++ runner against the onnxruntime of an environment; returns its path and prints the command."""
    folder = pathlib.Path(run(python, "-c", "import onnxruntime; print(onnxruntime.__file__)").strip()).parent
    (library,) = (folder / "capi").glob("libonnxruntime.so.*")
    # The wheel lacks the name that the library asks to be found under.
    link = out / "libonnxruntime.so.1"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    headers = ort_headers.find(build.cache_folder(), print)
    program = out / "onnx_runner"
    command = ["g++", "-O2", "-std=c++17", HERE / "onnx_runner.cc", "-I", headers, link, "-Wl,-rpath,$ORIGIN"]
    command += ["-o", program]
    print("  " + " ".join(map(str, command)).replace("$ORIGIN", "'$ORIGIN'"), flush=True)
    run(*command)
    return program.absolute()


def run(*command, statuses=(0,)):
    """Runs a command without this package on any path; returns what it printed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run([*map(str, command)], env=inherited, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode not in statuses or (not done.stdout and 1 in statuses):
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{pathlib.Path(str(command[0])).name} failed: {''.join(said)}")
    return done.stdout


def measured(row, args, output, environments, program, library):
    """Runs a row; returns what the runner printed, whether it found Keras' result or another one (status 1)."""
    files = [args.out / FILES[row.file][0], args.out / "inputs.npy", args.out / "expected.npy"]
    if row.runner.endswith(".cc"):
        own = [library] if "--library" in row.arguments else []
        command = [program, *files, output, args.threads, *own]
    else:
        own = [part for name in row.arguments for part in ((name, library) if name == "--library" else (name,))]
        command = [environments[row.environment], HERE / row.runner, *files, "--output", output]
        command += ["--threads", args.threads, *own]
    line = run(*command, statuses=(0, 1)).splitlines()[-1]
    try:
        found = json.loads(line)
        return {name: found[name] for name in FOUND}
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"Expected {row.runner} to end with a line of JSON. Received: {line!r}") from error


def megabytes(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def table(rows, keras_ms):
    lines = [f"{'':<34}{'runtime':<26}{'MB':>7}{'ms':>9}{'max error':>12}"]
    lines.append(f"{'Keras, compiled ops':<34}{'TensorFlow ' + tf.__version__:<26}{'':>7}{keras_ms:>9.2f}{'':>12}")
    for row in rows:
        if "problem" in row:
            lines.append(f"{row['name']:<34}{row['problem']}")
            continue
        verdict = "" if row["passed"] else "  NOT WHAT KERAS COMPUTES"
        foreign = f"  ({', '.join(row['foreign'])} could be imported)" if row["foreign"] else ""
        numbers = f"{row['megabytes']:>7.2f}{row['ms']:>9.2f}{row['max_abs']:>12.1e}"
        lines.append(f"{row['name']:<34}{row['runtime']:<26}{numbers}{verdict}{foreign}")
    return "\n".join(lines)


def main(arguments=None):
    """Returns the exit status: 1 if a runner failed or did not find Keras' result."""
    args = parse(arguments)
    chosen = [row for row in ROWS_OF_TABLE if row.environment in args.only]
    try:
        network, inputs, source = prepared(args, chosen)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")
    try:
        return deploy(args, chosen, network, inputs, source)
    except RuntimeError as error:  # of an export, of an installation, of a compiler
        sys.exit(f"{error}")


def deploy(args, chosen, network, inputs, source):
    """Exports the network, runs the chosen rows on its inputs, and reports; returns the exit status."""
    print("== Export")
    for file in dict.fromkeys(row.file for row in chosen):
        name, options = FILES[file]
        validation = export.Validation(batch_sizes=(1, 2))
        report = export.export(network, args.out / name, validate=validation, verbose=False, **options)
        (output,) = report.outputs
        error = max(check.max_abs for check in report.validation.outputs)
        print(f"  {name}: validated on {report.validation.runtime}, max error {error:.1e}", flush=True)
    print(f"== Keras: {args.calls} sequences of {GIVEN} frames, {inputs.shape[2]} x {inputs.shape[3]}, of {source}")
    expected, keras_ms = reference(network, inputs)
    np.save(args.out / "inputs.npy", inputs)
    np.save(args.out / "expected.npy", expected)

    print("== Environments")
    own = [name for name in args.only if name != "tensorflow" or args.tensorflow_environment]
    environments = {name: environment(args.out / f"env_{name}", ENVIRONMENTS[name]) for name in own}
    environments.setdefault("tensorflow", sys.executable)
    program = compiled(args.out, environments["onnx"]) if "onnx" in args.only else None
    library = export.ort_library() if any("--library" in row.arguments for row in chosen) else None

    print("== Runners")
    rows = []
    for row in chosen:
        try:
            found = measured(row, args, output, environments, program, library)
        except RuntimeError as error:
            found = {"problem": str(error), "passed": False}
        rows.append({"name": row.name, "megabytes": megabytes(args.out / FILES[row.file][0]), **found})
    weights = "untrained" if args.weights is None else str(args.weights)
    about = {"versions": {"python": platform.python_version(), "keras_dynfilter": keras_dynfilter.__version__}}
    about |= {
        "sequence": source,
        "shape": inputs.shape,
        "weights": weights,
        "threads": args.threads,
        "keras_ms": keras_ms,
    }
    (args.out / "results.json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    print(f"\ndfn_highway, {weights}; milliseconds of a call on {args.threads} threads\n{table(rows, keras_ms)}")
    print(f"\nFigures: {args.out / 'results.json'}")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
