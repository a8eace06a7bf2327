# SPDX-License-Identifier: Apache-2.0
"""Head and end of a script: its parser, what must be there before it trains, results and exports of its networks."""

import argparse
import contextlib
import sys

from examples.experiments.core import common, harness
from keras_dynfilter import export, inspection
from keras_dynfilter.export import formats


def new_parser(doc, out, recipes):
    """A parser with the options of every experiment that trains a network and its twin.

    Args:
        doc: Docstring of the script, for `--help`; it says what the recipes are.
        out: Default of `--out`.
        recipes: As for `harness.parse`.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(
        "--recipe", choices=recipes, default="reduced", help="set of defaults, which are RECIPE=VALUE below; see above"
    )
    parser.add_argument(
        "--width", type=common.positive_float, default=1.0, help="factor of the channel counts of the network"
    )
    harness.add_options(parser, out)
    harness.add_training_options(parser)
    return parser


@contextlib.contextmanager
def preparing(args):
    """Around what loads the data: what is missing ends the script with one line, and before a training, not after."""
    try:
        inspection.new_figure(1, 1)
        for kind in getattr(args, "export", []):
            formats.choose(kind, "portable", None)
        yield
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")


def finished(run, trained):
    """Whether this process has networks to test: not where the time limit ended a training, which it says then.

    Args:
        run: A `harness.Run`.
        trained: `training.Trained` by name.
    """
    if not run.chief:
        return False
    unfinished = any(done.steps < run.args.iterations for done in trained.values())
    if unfinished:
        print_times(trained)
        again = "the same command" if run.args.resume else "the same command with --resume"
        print(f"Not finished, {run.args.iterations} iterations, so not tested: {again} goes on.")
    return not unfinished


def print_times(trained):
    """Prints how long networks were trained, `training.Trained` by name."""
    for name, done in trained.items():
        minutes = f"{done.seconds / 60:.1f} minutes, {done.processor_seconds / 60:.1f} of processor time"
        print(f"{name}: {done.steps} iterations in {minutes}")


def conclude(run, trained, content, files):
    """Writes the results and exports the networks; prints how long they trained, where all is, and what to do next.

    Args:
        run: A `harness.Run`.
        trained: `training.Trained` by name.
        content: What the script adds to the results, as for JSON.
        files: Names of the files in `--out` that the script has written.
    """
    args = run.args
    print_times(trained)
    content = {"training": {name: harness.training_figures(done) for name, done in trained.items()}, **content}
    harness.write_results(run, content)  # already: a failing export costs no figures
    reports = {name: write_exports(run, name, done.network) for name, done in trained.items()}
    path = harness.write_results(run, {**content, "exports": reports})
    print(f"\nFiles in {args.out}: {', '.join([*files, path.name, *(f'{name}.keras' for name in trained)])}")
    for name in trained:
        print_exports(args, name)
    if not args.baseline:
        print("Next: compare it with the network that makes pixels: the same command with --resume --baseline")


def write_exports(run, name, network):
    """Exports a network in the formats of `--export`, which prints the reports; returns them by format."""
    paths = {kind: str(run.args.out / (name + harness.EXPORTS[kind])) for kind in run.args.export}
    return {kind: export.export(network, path, format=kind).to_dict() for kind, path in paths.items()}


def print_exports(args, name):
    """Prints where the exports of a network are."""
    for kind in args.export:
        print(f"Export   {args.out / (name + harness.EXPORTS[kind])} ({kind}, validated)")


def run_script(main, again="The same command with --resume"):
    """Ends the process with the status that `main` returns, and without a traceback where it is interrupted."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. {again} continues after the last checkpoint.")
