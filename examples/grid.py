# SPDX-License-Identifier: Apache-2.0
"""A grid of trainings, which processes side by side share and which the same command goes on with.

A cell is a training; what is to be known of a finished one lies in `OUT/cells/NAME.json`, what the next process
continues from in `OUT/cells/NAME.checkpoint`.

def main(arguments=None):
    args = parse(arguments)
    return grid.run(args, arguments, __file__, FREE, load, cells, train_cell, report)

if __name__ == "__main__":
    grid.run_script(main)
"""

import functools
import json
import os
import subprocess
import sys

import filelock
import keras

import checkpoint
import common
import experiment
import harness

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
run_script = functools.partial(experiment.run_script, again="The same command")


def run(args, arguments, script, free, load, cells, train, report):
    """The course of a script: starts processes or trains cells, then reports on all that are finished.

    Args:
        args: The arguments, with `out` and `processes`.
        arguments: What they were parsed from: a list of strings, or None for those of the process.
        script: Path of the script.
        free: As for `harness.begin`: what a grid may be continued with.
        load: Function of `args` that returns `(train, test)`, each images and labels.
        cells: What `train` is told of each cell, by name, in the order of training.
        train: Function of a `harness.Run`, of what is told of a cell, and of the images and labels to train and to test
            on; trains the cell, or what is left of it, and returns what is to be known of it.
        report: Function of what is known of the finished cells that returns what of it goes into the results, the
            tables as Markdown, and the figure.

    Returns:
        The exit status.
    """
    status = start_processes(args, script, arguments) if args.processes > 1 else 0
    with experiment.preparing(args):
        learned, tested = load(args)
        args.out.mkdir(parents=True, exist_ok=True)
    data = common.fingerprint(dict(zip(NAMES, (*learned, *tested))))
    with filelock.FileLock(args.out / "settings.lock"):
        begun = harness.begin(args, free=free, data=data)
    if args.processes == 1:
        try:
            train_cells(args, cells, lambda name: train(begun, *cells[name], learned, tested))
        except checkpoint.SetupError as error:
            sys.exit(f"{error}")
    with filelock.FileLock(args.out / "report.lock"):
        write_report(begun, cells, report)
    return status


def write_report(begun, names, report):
    """Writes and prints what `report` makes of the finished cells; names the others."""
    args, found = begun.args, finished_cells(begun.args, names)
    missing = [name for name in names if name not in found]
    if found:
        content, text, figure = report(found.values())
        (args.out / "tables.md").write_text(text)
        figure.savefig(args.out / "accuracy.png", dpi=110)
        harness.write_results(begun, {**content, "missing": missing})
        print(f"\n{text}\nFiles in {args.out}: tables.md, accuracy.png, results.json, cells/")
    if missing:
        print(f"Not finished: {', '.join(missing)}. The same command goes on with them.")


def cell_path(args, name):
    """The file of a finished cell."""
    return args.out / "cells" / f"{name}.json"


def train_cells(args, names, train):
    """Trains the cells that are not finished and that no other process is training.

    Args:
        args: Arguments with `out`.
        names: Names of the cells, in order.
        train: Function of a name that trains the cell, or what is left of it, and returns what is to be known of it.
    """
    (args.out / "cells").mkdir(parents=True, exist_ok=True)
    for name in names:
        path = cell_path(args, name)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"{name}: another process is at it.", flush=True)
            continue
        with lock:
            if path.exists():
                continue
            common.write_json(path, train(name))
        keras.backend.clear_session()


def finished_cells(args, names):
    """What is known of the finished ones of the cells, by name."""
    return {name: json.loads(cell_path(args, name).read_text()) for name in names if cell_path(args, name).exists()}


def start_processes(args, script, arguments=None):
    """Runs a script several times at once, with an equal share of the cores each.

    Args:
        args: Arguments with `out` and `processes`.
        script: Path of the script.
        arguments: Those of the script, or None for those of the process.

    Returns:
        The worst exit status.
    """
    threads = str(max(1, common.machine()["cores"] // args.processes))
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    command = [sys.executable, "-u", script, *(sys.argv[1:] if arguments is None else arguments), "--processes", "1"]
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [args.out / f"process_{number + 1}.log" for number in range(args.processes)]
    print(f"{args.processes} processes, their output: {', '.join(map(str, paths))}", flush=True)
    children = []
    try:
        for path in paths:
            with open(path, "w") as file:
                children.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        statuses = [child.wait() for child in children]
    finally:
        for child in children:
            child.terminate()  # nothing happens to one that has ended
    for path, status in zip(paths, statuses):
        if status:
            print(f"{path}: ended with status {status}:\n{path.read_text()[-2000:]}", file=sys.stderr)
    return max(map(abs, statuses))
