# SPDX-License-Identifier: Apache-2.0
"""Implements `python -m tests.fuzz`."""

import argparse
import contextlib
import pathlib
import random
import signal
import sys
from collections.abc import Sequence

from tests.fuzz import campaign
from tests.fuzz.targets import MODES


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Calls the package with random inputs. The exit status is 1 if an input was handled wrongly.",
    )
    names = [*dict.fromkeys(mode.target for mode in MODES), *(mode.label for mode in MODES)]
    parser.add_argument(
        "--minutes",
        type=float,
        default=3.0,
        help="time of the random inputs; the corpus and the shrinking of failures come on top (default: %(default)s)",
    )
    parser.add_argument(
        "--calls", type=float, metavar="FACTOR", help="instead: a multiple of the short run of the tests"
    )
    parser.add_argument("--seed", type=int, help="seed of the inputs (default: a random one, which is printed)")
    parser.add_argument("--targets", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("outputs/fuzz"), help="folder of the failures")
    parser.add_argument("--replay", type=pathlib.Path, metavar="FILE", help="run the input of one failure again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns 1 if an input was handled wrongly."""
    args = parse(arguments)
    if args.replay is not None:
        failures = campaign.replay(args.replay)
        print(
            "\n".join(f"{failure['kind']}: {failure['text']}" for failure in failures) or "The input no longer fails."
        )
        return int(bool(failures))
    seed = random.randrange(1 << 30) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    modes = campaign.chosen(args.targets) if args.targets else MODES
    run = campaign.Campaign(seed, modes, args.out, show=lambda text: print(text, flush=True))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        run.run_corpus()
        if args.calls is not None:
            run.run_calls(args.calls)
        else:
            run.run_minutes(args.minutes)
    print(run.summary(), flush=True)
    return int(bool(run.failures))


if __name__ == "__main__":
    sys.exit(main())
