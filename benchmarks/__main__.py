# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: every op beside what a user would write instead, and beside the bandwidth of memory.

Per case and candidate: median milliseconds, the rate at which the bytes that must move at least were moved, that rate
as a share of the copy bandwidth measured in the same run, and the growth of resident memory. A candidate that does
another job (TensorFlow's convolutions have one filter for all samples and positions) is there as a yardstick.
"""

import argparse
import json
import os
import pathlib

import tensorflow as tf

from benchmarks import targets, timing
from benchmarks.ops import cases


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times every op beside what a user would write instead, and beside the bandwidth of memory.",
    )
    parser.add_argument("--op", action="append", help="only this op (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="three small cases, to see that it runs")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/bench.jsonl", help="JSON lines go here")
    arguments = parser.parse_args()

    known = {case.op for case in cases.CASES}
    for op in arguments.op or ():
        if op not in known:
            parser.error(f"Expected --op to be one of {', '.join(sorted(known))}. Received: {op}")
    chosen = [c for c in (cases.QUICK if arguments.quick else cases.CASES) if not arguments.op or c.op in arguments.op]
    if not chosen:
        parser.error(
            f"Expected --op to be one of {', '.join(sorted({case.op for case in cases.QUICK}))} with --quick. "
            f"Received: {', '.join(arguments.op)}"
        )
    try:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text("")
    except OSError as error:
        parser.error(f"Expected --json to be a file that can be written. Received: {arguments.json} ({error.strerror})")
    with open(arguments.json, "w") as file:
        measured = _run(chosen, file)
    if not (arguments.quick or arguments.op):
        print("\nBars:")
        print("\n".join(f"  {line}" for line in targets.lines(measured)))
    print(f"\nJSON lines: {arguments.json}")


def _run(chosen, file):
    """Measures, prints and writes the cases; returns all rows."""
    copy = timing.copy_gb_per_s()
    machine = {"cpu": timing.cpu(), "cores": len(os.sched_getaffinity(0)), "tensorflow": tf.version.VERSION}
    print(
        f"{machine['cpu']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}, float32; copy {copy:.1f} GB/s"
    )
    measured = []
    for case in chosen:
        for backward in (False, True):
            rows = [dict(row, copy_gb_per_s=copy, **machine) for row in _rows(case, backward, copy)]
            _print(case, backward, rows)
            for row in rows:
                file.write(json.dumps(row) + "\n")
            file.flush()
            measured += rows
    return measured


def _rows(case, backward, copy):
    least = case.minimum_bytes(backward)
    for name, (function, operands) in cases.candidates(case).items():
        if backward:
            function = cases.with_gradients(function, operands, xla="XLA" in name)

        def call(function=function, operands=operands):
            return function(*operands)

        ms = timing.median_ms(call)
        rate = least / ms / 1e6
        peak = timing.peak_mb(call)
        yield {
            "op": case.op,
            "note": case.note,
            "shape": case.shape,
            "pass": "forward+backward" if backward else "forward",
            "candidate": name,
            "ms": round(ms, 3),
            "minimum_mb": round(least / 1e6, 1),
            "gb_per_s": round(rate, 2) if not name.startswith("TF") else None,
            "of_copy": round(rate / copy, 3) if not name.startswith("TF") else None,
            "peak_mb": None if peak is None else round(peak, 1),
        }


def _print(case, backward, rows):
    kind = "forward + backward" if backward else "forward"
    shape = "x".join(str(size) for size in case.shape)
    print(f"\n{case.op} ({shape}; {case.note}), {kind}; at least {rows[0]['minimum_mb']} MB move")
    print(f"  {'':<15}{'ms':>10}{'GB/s':>9}{'of copy':>9}{'peak MB':>9}{'ours takes':>12}")
    for row in rows:
        rate = f"{row['gb_per_s']:>9.2f}{row['of_copy']:>9.0%}" if row["gb_per_s"] is not None else " " * 18
        peak = f"{row['peak_mb']:>9.0f}" if row["peak_mb"] is not None else " " * 9
        share = f"{rows[0]['ms'] / row['ms']:>11.2f}x"
        print(f"  {row['candidate']:<15}{row['ms']:>10.2f}{rate}{peak}{share}", flush=True)


if __name__ == "__main__":
    main()
