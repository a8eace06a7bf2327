# SPDX-License-Identifier: Apache-2.0
"""A grid of trainings, which processes side by side share and which the same command goes on with.

A cell is a training; what is to be known of a finished one lies in `OUT/cells/NAME.json`, what the next process
continues from in `OUT/cells/NAME.checkpoint`. Options, and all that follows:

def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    grid.add_options(parser, variants, "outputs/script")
    return grid.parse(parser, arguments, smoke)

def main(arguments=None):
    args = parse(arguments)
    return grid.run(args, arguments, __file__, load, train_cell, report)

if __name__ == "__main__":
    grid.run_script(main)
"""

import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import time

import filelock
import keras

from examples.experiments.core import checkpoint, common, experiment, files, harness

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
# What a grid may be continued with, beside those of the harness. Of the source, the checksums of the data tell more.
FREE = ("only", "seeds", "processes", "source")
PATIENCE = 30  # seconds for processes that were interrupted
MADE_UP = ("generated", "rendered")  # sources of data that take the place of real ones
run_script = functools.partial(experiment.run_script, again="The same command")


def add_options(parser, variants, out):
    """Adds the options of every grid; `out` is the default of `--out`."""
    add = parser.add_argument
    add("--only", nargs="+", choices=variants, default=[*variants], metavar="VARIANT", help="; ".join(variants))
    add("--seeds", nargs="+", type=common.seed, default=[0, 1, 2], help="a training of every variant from each")
    harness.add_deterministic(add)
    add("--processes", type=common.positive_int, default=1, help="trainings side by side, which share the cores")
    add("--export", nargs="+", default=[], choices=harness.EXPORTS, help="export what was trained, and validate it")
    text = "folder of all files written; in the default one, --smoke, and --full where there is one, have their own"
    add("--out", type=pathlib.Path, default=pathlib.Path(out), help=text)
    add("--smoke", action="store_true", help="a few steps, to see in seconds that everything works")


def parse(parser, arguments, smoke, recipes=None):
    """As `harness.parse`; variants and seeds that were given twice are trained once."""
    parser.set_defaults(resume=True, seed=0)  # as the harness wants them
    args = harness.parse(parser, arguments, smoke, recipes)
    if args.out == parser.get_default("out"):  # these would be other runs, which cannot continue one another
        args.out /= "smoke" if args.smoke else "full" if getattr(args, "recipe", None) == "full" else ""
    for name in ("only", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def cells(args):
    """`{name: (variant, seed)}`, by seed: a grid that is cut short has all variants."""
    return {cell_name(variant, seed): (variant, seed) for seed in args.seeds for variant in args.only}


def cell_name(variant, seed):
    return f"{variant}_seed{seed}"


def run(args, arguments, script, load, train, report, free=()):
    """The course of a script: starts processes or trains cells, then reports on all that are finished.

    Args:
        args: The arguments, with `out` and `processes`.
        arguments: What they were parsed from: a list of strings, or None for those of the process.
        script: Path of the script.
        load: Function of `args` that returns `(train, test)`, each images and labels, and writes into `args.source`
            what they are.
        train: Function of a `harness.Run`, of the variant and the seed of a cell, and of the images and labels to train
            and to test on; trains the cell, or what is left of it, and returns what is to be known of it.
        report: Function of what is known of the finished cells, and of the images and labels to test on, that returns
            what of it goes into the results, the tables as Markdown, and figures by the names of their files.
        free: What a grid may be continued with, beside the options of every grid.

    Returns:
        The exit status.
    """
    names = cells(args)
    status = start_processes(args, script, arguments) if args.processes > 1 else 0
    with experiment.preparing(args):
        learned, tested = load(args)
        args.out.mkdir(parents=True, exist_ok=True)
    data = common.fingerprint(dict(zip(NAMES, (*learned, *tested))))
    with filelock.FileLock(args.out / "settings.lock"):
        begun = harness.begin(args, free=(*FREE, *free), data=data)
    try:
        if args.processes == 1:
            train_cells(args, names, lambda name: train(begun, *names[name], learned, tested))
            export_cells(begun, names if args.export else ())
    except checkpoint.SetupError as error:
        sys.exit(f"{error}")
    finally:  # an export that fails, or an interruption, costs no figures
        with filelock.FileLock(args.out / "report.lock"):
            write_report(begun, names, functools.partial(report, tested=tested))
    return status


def write_report(begun, names, report):
    """Writes and prints what `report` makes of the finished cells; names the others."""
    args, found = begun.args, finished_cells(begun.args, names)
    missing = [name for name in names if name not in found]
    if found:
        content, text, figures = report(found.values())
        text = f"{data_line(args.source, begun.settings['data'])}\n\n{text}"
        (args.out / "tables.md").write_text(text)
        for name, figure in figures.items():
            figure.savefig(args.out / name, dpi=110)
        exports = finished_cells(args, names, ".exports.json")
        content = {"source": args.source, **content, "missing": missing, "exports": exports}
        harness.write_results(begun, content)
        print(f"\n{text}\nFiles in {args.out}: tables.md, {', '.join(figures)}, results.json, cells/")
    if missing:
        print(f"Not finished: {', '.join(missing)}. The same command goes on with them.")


def data_line(source, described):
    """What was trained and tested on, of the description in the settings."""
    shapes = (described[f"{part}_images"].split(", ")[0].split(" x ") for part in ("train", "test"))
    sizes = ("{:,} images of {}".format(int(shape[-4]), " x ".join(shape[-3:])) for shape in shapes)
    text = "Data: {}; trained on {}, tested on {}.".format(source, *sizes)
    if source in MADE_UP:
        text += " They are made up: what the paper reports, and what is said of it below, is of others."
    return text


def cell_path(args, name, suffix=".json"):
    """The file of a finished cell."""
    return args.out / "cells" / f"{name}{suffix}"


def train_cells(args, names, train):
    """Trains the cells that are not finished and that no other process is training.

    Args:
        args: Arguments with `out`.
        names: Names of the cells, in order.
        train: Function of a name that trains the cell, or what is left of it, and returns what is to be known of it.
    """
    (args.out / "cells").mkdir(parents=True, exist_ok=True)
    for name in names:
        with alone(args, name) as alone_with_it:
            if alone_with_it and not cell_path(args, name).exists():
                files.write_json(cell_path(args, name), train(name))
        keras.backend.clear_session()


@contextlib.contextmanager
def alone(args, name):
    """Says whether this process alone is at the cell; no other one will be until the end of the block."""
    lock = filelock.FileLock(cell_path(args, name, ".lock"))
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{name}: another process is at it.", flush=True)
        yield False
        return
    with held:  # `with lock` would acquire it once more, and release it only once
        yield True


def export_cells(begun, names):
    """Exports the networks of finished cells in the formats of `--export`, if they are not yet; keeps the reports."""
    for name in finished_cells(begun.args, names):
        path = cell_path(begun.args, name, ".exports.json")
        with alone(begun.args, name) as alone_with_it:
            known = json.loads(path.read_text()) if path.exists() else {}
            if alone_with_it and not set(begun.args.export) <= set(known):
                network = keras.models.load_model(cell_path(begun.args, name, ".keras"), compile=False)
                files.write_json(path, {**known, **experiment.write_exports(begun, f"cells/{name}", network)})
                experiment.print_exports(begun.args, f"cells/{name}")
        keras.backend.clear_session()


def finished_cells(args, names, suffix=".json"):
    """What is known of the finished ones of the cells, by name."""
    paths = {name: cell_path(args, name, suffix) for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def announce(args, children, told):
    """Prints which cells are finished, as they are, while processes train them; of those in `told` it is known."""
    names, working, told = cells(args), True, [*told]
    while working:
        time.sleep(1)
        working = any(child.poll() is None for child in children)  # asked first: the last cell is told, too
        for name in names:
            if name not in told and cell_path(args, name).exists():
                told.append(name)
                print(f"{name} is finished: {len(told)} of {len(names)} cells", flush=True)


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
    children, told = [], finished_cells(args, cells(args))  # before the processes begin: they may be quick
    try:
        for path in paths:
            with open(path, "w") as file:
                children.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        announce(args, children, told)
        statuses = [child.wait() for child in children]
    except KeyboardInterrupt:  # they are interrupted, too, and write what they know
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
        raise
    finally:
        for child in children:
            child.terminate()  # nothing happens to one that has ended
            child.wait()  # else it might still hold a cell when the same command is given again
    for path, status in zip(paths, statuses):
        if status:
            print(f"{path}: ended with status {status}:\n{path.read_text()[-2000:]}", file=sys.stderr)
    return max(map(abs, statuses))
