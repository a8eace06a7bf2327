# SPDX-License-Identifier: Apache-2.0
"""Trains sweeps: one run for each variant and seed. Several processes can share a sweep; the same command continues it.

`OUT/runs/NAME.json` describes a finished run; an interrupted run continues from `OUT/runs/NAME.checkpoint`. A run that
diverges does not stop the sweep: `OUT/runs/NAME.diverged.json` says at which step, and without this file, the same
command continues the run from its last state. A script consists of these parts:

    def parse(arguments=None):
        parser = options.new_parser(__doc__)
        sweep.add_options(parser, variants, "outputs/experiment")
        return sweep.parse(parser, arguments, smoke)

    def main(arguments=None):
        return sweep.main(parse(arguments), arguments, MODULE, load, train_run, report)

    if __name__ == "__main__":
        sweep.run_script(main)
"""

import argparse
import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import filelock
import keras

from examples.experiments.core import checkpoint, environment, exports, files, options, run
from examples.experiments.core import markdown as md
from examples.experiments.core.divergence import DivergedError

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Options that may differ when a sweep continues, in addition to `run.FREE`. Data are compared by their checksums, not
# by `source`.
FREE = ("only", "seeds", "processes", "source")
PATIENCE = 30  # seconds that interrupted processes have to end
DIVERGED = ".diverged.json"  # suffix of the files of diverged runs
SYNTHETIC = ("generated", "rendered")  # sources of data that replace the real ones
run_script = functools.partial(run.run_script, again="The same command")


def add_options(parser: argparse.ArgumentParser, variants: Iterable[str], out: str) -> None:
    """Adds the options of every sweep; `out` is the default of `--out`."""
    add = parser.add_argument
    text = "train only these variants; by default %(default)s"
    add("--only", nargs="+", choices=variants, default=[*variants], metavar="VARIANT", help=text)
    add("--seeds", nargs="+", type=options.seed, default=[0, 1, 2], help="train every variant from each of these seeds")
    options.add_deterministic(add)
    add("--processes", type=options.positive_int, default=1, help="number of processes, which share runs and cores")
    options.add_export(add)
    text = "folder of all files written; by default %(default)s, with subfolders for --smoke and --full (if available)"
    add("--out", type=pathlib.Path, default=pathlib.Path(out), metavar="DIR", help=text)
    options.add_smoke(add)


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    smoke: Mapping[str, Any],
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """Parses options as `options.parse` does. Variants and seeds that are given twice are trained once."""
    parser.set_defaults(resume=True, seed=0)  # as `run.begin` needs them
    args = options.parse(parser, arguments, smoke, recipes)
    if args.out == parser.get_default("out"):  # smoke, reduced and full runs cannot continue one another
        args.out /= "smoke" if args.smoke else "full" if getattr(args, "recipe", None) == "full" else ""
    for name in ("only", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def runs_of(args: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Returns `{name: (variant, seed)}`, ordered by seed: a sweep that is stopped early then has all variants."""
    return {run_name(variant, seed): (variant, seed) for seed in args.seeds for variant in args.only}


def run_name(variant: str, seed: int) -> str:
    """Returns the name of a run."""
    return f"{variant}_seed{seed}"


def run_path(args: argparse.Namespace, name: str, suffix: str = ".json") -> pathlib.Path:
    """Returns the path of a file of a run."""
    return args.out / "runs" / f"{name}{suffix}"


def main(
    args: argparse.Namespace,
    arguments: Sequence[str] | None,
    module: str,
    load: Callable,
    train: Callable,
    report: Callable,
    free: Sequence[str] = (),
) -> int:
    """Trains the runs, or starts processes that train them, and reports on all finished runs.

    Args:
        args: The options.
        arguments: Strings that the options were parsed from, or None for the arguments of the process.
        module: Name of the module of the script, for `python -m`.
        load: Function of `args` that returns `(train, test)`, each images and labels, and sets `args.source` to the
            source of the data.
        train: Function of a `run.Experiment`, of the variant and the seed of a run, and of the images and labels to
            train and to test on. It trains the run, or the rest of it, and returns its description, for JSON.
        report: Function of the descriptions of the finished runs, and of the images and labels to test on. It returns
            the content of the results, the tables as Markdown, and figures by the names of their files.
        free: Options that may differ when the sweep continues, in addition to `FREE`.

    Returns:
        The exit status: above 0 if a run diverged, or if a process failed.
    """
    runs = runs_of(args)
    with run.writing_to_out(args):
        (args.out / "runs").mkdir(parents=True, exist_ok=True)
        with locked(args.out / "settings.lock"):  # fails if the folder cannot be written
            finished_runs(args, runs)  # a damaged description is an error before the training, not after it
    exports.check_export_paths(args, [f"runs/{name}" for name in runs])
    status = start_processes(args, module, arguments) if args.processes > 1 else 0
    with run.preparing(args):
        train_data, test_data = load(args)
    data = run.fingerprint(dict(zip(ARRAYS, (*train_data, *test_data))))
    with locked(args.out / "settings.lock"):
        experiment = run.begin(args, free=(*FREE, *free), data=data)
    try:
        if args.processes == 1:
            train_runs(args, runs, lambda name: train(experiment, *runs[name], train_data, test_data))
            export_runs(args, runs if args.export else ())
    finally:  # even if an export fails, or the user interrupts
        with locked(args.out / "report.lock"):
            write_report(experiment, runs, functools.partial(report, test_data=test_data))
    return max(status, int(bool(finished_runs(args, runs, DIVERGED))))


def write_report(experiment: run.Experiment, names: Iterable[str], report: Callable) -> None:
    """Writes and prints the report on the finished and diverged runs, and prints the names of the other runs."""
    args, finished = experiment.args, finished_runs(experiment.args, names)
    diverged = finished_runs(args, [name for name in names if name not in finished], DIVERGED)
    missing = [name for name in names if name not in {**finished, **diverged}]
    if finished or diverged:
        content, text, figures = report(finished.values()) if finished else ({}, "", {})
        text = f"{describe_data(args.source, experiment.settings['data'])}\n\n{text}{diverged_table(diverged)}"
        files.write_text(args.out / "tables.md", text)
        run.save_figures(args, figures)
        reports = finished_runs(args, names, ".exports.json")
        steps = {name: description["step"] for name, description in diverged.items()}
        content = {"source": args.source, **content, "diverged": steps, "missing": missing, "exports": reports}
        run.write_results(experiment, content)
        print(f"\n{text}\nFiles in {args.out}: {', '.join(['tables.md', *figures, 'results.json', 'runs/'])}")
    if missing:
        print(f"Not finished: {', '.join(missing)}. The same command continues with them.")


def diverged_table(diverged: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table of the diverged runs as Markdown; the empty text if there are none."""
    if not diverged:
        return ""
    rows = [[name, f"diverged at step {description['step']}"] for name, description in diverged.items()]
    note = f"Means and claims leave out diverged runs. Without runs/NAME{DIVERGED}, the same command continues a run."
    return f"\n{md.table(['run', 'result'], rows)}\n{note}\n"


def report_accuracies(module, runs: Iterable[Mapping[str, Any]], test_data: Any = None):
    """Reports accuracies by the functions `summarize`, `check_claims`, `markdown` and `figure` of a module.

    Args:
        module: The module.
        runs: Descriptions of the finished runs.
        test_data: The images and labels to test on, which are not used.
    """
    summary = module.summarize(runs)
    claims = module.check_claims(summary)
    content = {"variants": summary, "claims": claims}
    return content, module.markdown(summary, claims), {"accuracy.png": module.figure(summary)}


def describe_data(source: str, described: Mapping[str, str]) -> str:
    """Returns a sentence about the training and test data, from their fingerprint in the settings."""
    shapes = (described[f"{part}_images"].split(", ")[0].split(" x ") for part in ("train", "test"))
    sizes = ("{:,} images of {}".format(int(shape[-4]), " x ".join(shape[-3:])) for shape in shapes)
    text = "Data: {}; trained on {}, tested on {}.".format(source, *sizes)
    if source in SYNTHETIC:
        text += " These data are synthetic; the figures and claims of the paper are about real data."
    return text


def train_runs(args: argparse.Namespace, names: Iterable[str], train: Callable[[str], Any]) -> None:
    """Trains the runs that are not finished and that no other process is training.

    Args:
        args: The options, with `out`.
        names: Names of the runs, in order.
        train: Function of a name that trains the run, or the rest of it, and returns its description, for JSON.
    """
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    for name in names:
        with locked_run(args, name) as free:
            if free and not run_path(args, name).exists() and not run_path(args, name, DIVERGED).exists():
                try:
                    files.write_record(run_path(args, name), train(name))
                except DivergedError as error:  # the other runs go on
                    print(f"{error}", flush=True)
                    files.write_record(run_path(args, name, DIVERGED), {"step": error.step, "reason": f"{error}"})
        keras.backend.clear_session()


@contextlib.contextmanager
def locked_run(args: argparse.Namespace, name: str) -> Iterator[bool]:
    """Locks a run for this process until the end of the block. Yields False if another process has locked it."""
    with locked(run_path(args, name, ".lock"), wait=False) as held:
        if not held:
            print(f"{name}: locked by another process, skipped.", flush=True)
        yield held


@contextlib.contextmanager
def locked(path: pathlib.Path, wait: bool = True) -> Iterator[bool]:
    """Locks a file until the end of the block. Yields False if another process has locked it and `wait` is False.

    Raises:
        files.WriteError: The file cannot be written.
    """
    lock = filelock.FileLock(path)
    with files.writing(path), contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def export_runs(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Exports the networks of finished runs in the formats of `--export`, unless they are already exported."""
    for name in finished_runs(args, names):
        path = run_path(args, name, ".exports.json")
        with locked_run(args, name) as free:
            reports = read_description(path) if path.exists() else {}
            if free and not set(args.export) <= set(reports):
                network = load_network(args, name)
                files.write_record(path, {**reports, **exports.write_exports(args, f"runs/{name}", network)})
                exports.print_exports(args, f"runs/{name}")
        keras.backend.clear_session()


def load_network(args: argparse.Namespace, name: str) -> keras.Model:
    """Loads the network of a finished run.

    Raises:
        checkpoint.SetupError: The file is damaged.
    """
    path = run_path(args, name, ".keras")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many types for damaged files
        remedy = f"Delete it and {run_path(args, name)}; the same command then writes both again"
        raise checkpoint.SetupError(
            f"Expected {path} to hold the network of a finished run. Received: {error}. {remedy}"
        ) from error


def finished_runs(args: argparse.Namespace, names: Iterable[str], suffix: str = ".json") -> dict[str, Any]:
    """Returns the content of the files with this suffix by run, for all runs that have such a file.

    Raises:
        checkpoint.SetupError: A file is damaged.
    """
    paths = {name: run_path(args, name, suffix) for name in names}
    return {name: read_description(path) for name, path in paths.items() if path.exists()}


def read_description(path: pathlib.Path) -> dict[str, Any]:
    """Reads the description of a finished or diverged run, or of its exports, from a JSON file.

    Raises:
        checkpoint.SetupError: The file is damaged.
    """
    remedy = "Delete the file; the same command then writes it again"
    return checkpoint.read_record(path, "the description of a run", remedy)


def announce(args: argparse.Namespace, children: Sequence[subprocess.Popen], announced: Iterable[str]) -> None:
    """Prints the name of each run when it is finished, until all processes have ended.

    Args:
        args: The options.
        children: The processes.
        announced: Names of runs that were finished before the processes started.
    """
    names, working, announced = runs_of(args), True, [*announced]
    while working:
        time.sleep(1)
        # The processes come before the files, so that the last run is announced, too.
        working = any(child.poll() is None for child in children)
        for name in names:
            if name not in announced and run_path(args, name).exists():
                announced.append(name)
                print(f"{name} is finished: {len(announced)} of {len(names)} runs", flush=True)


def start_processes(args: argparse.Namespace, module: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a module in several processes at once, each with an equal share of the cores.

    Args:
        args: The options, with `out` and `processes`.
        module: Name of the module, for `python -m`.
        arguments: Arguments of the module, or None for the arguments of this process.

    Returns:
        The largest exit status.
    """
    threads = str(max(1, environment.cores() // args.processes))
    variables = {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    arguments = sys.argv[1:] if arguments is None else arguments
    command = [sys.executable, "-u", "-m", module, *arguments, "--processes", "1"]
    paths = [args.out / f"process_{number + 1}.log" for number in range(args.processes)]
    print(f"{args.processes} processes, their output: {', '.join(map(str, paths))}", flush=True)
    announced = finished_runs(args, runs_of(args))  # read before the processes start, since they may be fast
    children = []
    try:
        for path in paths:
            with files.new_log(path) as file:
                children.append(subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT))
        announce(args, children, announced)
        statuses = [child.wait() for child in children]
    except KeyboardInterrupt:  # the processes are interrupted, too, and write their reports
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
        raise
    finally:
        for child in children:
            child.terminate()  # has no effect on a process that has ended
            child.wait()  # otherwise it might still lock a run when the same command is given again
    for path, status in zip(paths, statuses):
        if status:
            print(f"{path}: ended with status {status}:\n{path.read_text()[-2000:]}", file=sys.stderr)
    return max(map(abs, statuses))
