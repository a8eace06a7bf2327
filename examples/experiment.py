# SPDX-License-Identifier: Apache-2.0
"""Head and end of a script: its parser, what it needs before it begins, results and exports of its networks.

def main(arguments=None):
    parser = experiment.new_parser(__doc__, "outputs/name", RECIPES)
    args = harness.parse(parser, arguments, SMOKE, RECIPES)
    with experiment.preparing(args):
        images = ...
    run = harness.begin(args, data=common.fingerprint({"images": images}))
    trained = harness.train_networks(run, networks, loss, batches)
    if run.chief:
        experiment.conclude(run, trained, {"test": ...}, files)

if __name__ == "__main__":
    experiment.run_script(main)
"""

import argparse
import contextlib
import sys

import common
import exports
import harness
from keras_dynfilter import visualize


def new_parser(doc, out, recipes):
    """A parser with the options of every experiment that trains a network and its twin.

    Args:
        doc: Docstring of the script, which `--help` shows; it says what the recipes are.
        out: Default of `--out`.
        recipes: As for `harness.parse`; `reduced` is the default.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(
        "--recipe", choices=recipes, default="reduced", help="set of defaults, which are RECIPE=VALUE below; see above"
    )
    parser.add_argument(
        "--width", type=common.positive_float, default=1.0, help="factor of the channel counts of the network"
    )
    harness.add_options(parser, out, exports.KINDS)
    harness.add_training_options(parser)
    return parser


@contextlib.contextmanager
def preparing(args):
    """Around what loads the data: what is missing ends the script with one line, and before a training, not after."""
    try:
        visualize.new_figure(1, 1)
        exports.check_packages(args.export)
        yield
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")


def conclude(run, trained, content, files):
    """Writes the results and exports the networks; prints how long they trained, where all is, and what to do next.

    Args:
        run: A `harness.Run`.
        trained: `training.Trained` by name.
        content: What the script adds to the results, as for JSON.
        files: Names of the files in `--out` that the script has written.
    """
    args = run.args
    for name, done in trained.items():
        print(f"{name}: {done.steps} iterations in {done.seconds / 60:.1f} minutes")
    content = {"training": {name: harness.training_figures(done) for name, done in trained.items()}, **content}
    harness.write_results(run, content)  # already: a failing export costs no figures
    reports = exports.write(run, {name: done.network for name, done in trained.items()})
    path = harness.write_results(run, {**content, "exports": reports})
    print(f"\nFiles in {args.out}: {', '.join([*files, path.name, *(f'{name}.keras' for name in trained)])}")
    exports.print_paths(args, trained)
    if not args.baseline:
        print("Next: compare it with the network that makes pixels: the same command with --resume --baseline")


def run_script(main):
    """Ends the process with the status that `main` returns, and without a traceback where it is interrupted."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command with --resume continues after the last checkpoint.")
