# SPDX-License-Identifier: Apache-2.0
"""Measures the time and the memory of every op, and of the code that a user would write without it.

For each case and candidate, the benchmark prints the median milliseconds of a call; the data rate, which is the minimum
number of bytes that must move, divided by the time; this rate relative to the bandwidth of copies in the same run; and
the memory that TensorFlow allocates. TensorFlow's convolutions compute something else (one filter for all samples and
positions); their times are a scale for the other times.
"""

import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.ops import cases, op_targets
from benchmarks.targets import print_targets
from examples.experiments.core.environment import cores, processor_name


def parse(arguments=None):
    parser = new_parser("benchmarks", __doc__)
    parser.add_argument("--op", action="append", help="only this op (may be repeated)")
    parser.add_argument(
        "--quick", action="store_true", help="only three small cases, to check that the benchmark works"
    )
    add_json(parser, "outputs/bench.jsonl")
    args = parser.parse_args(arguments)
    known = {case.op for case in (cases.QUICK if args.quick else cases.CASES)}
    for op in args.op or ():
        if op not in known:
            quick = " with --quick" if args.quick else ""
            parser.error(f"Expected --op to be one of {', '.join(sorted(known))}{quick}. Received: {op}")
    return args


def main(arguments=None):
    args = parse(arguments)
    chosen = [case for case in (cases.QUICK if args.quick else cases.CASES) if not args.op or case.op in args.op]
    with json_lines(args.json) as write:
        rows = measure_cases(chosen, write)
        if not (args.quick or args.op):
            print_targets(op_targets.report(rows))


def measure_cases(chosen, write):
    """Measures the cases, prints and writes their rows. Returns the rows of all candidates."""
    copy = timing.copy_gb_per_s()
    machine = {"cpu": processor_name(), "cores": cores(), "tensorflow": tf.version.VERSION}
    print(
        f"{machine['cpu']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}, float32; copy {copy:.1f} GB/s"
    )
    all_rows = []
    for case in chosen:
        for backward in (False, True):
            rows = [dict(row, copy_gb_per_s=copy, **machine) for row in measure(case, backward, copy)]
            print_rows(case, backward, rows)
            for row in rows:
                write(row)
            all_rows += rows
    return all_rows


def measure(case, backward, copy):
    """Yields the row of each candidate of a case."""
    min_bytes = case.minimum_bytes(backward)
    for name, (function, operands) in cases.candidates(case).items():
        if backward:
            function = cases.with_gradients(function, operands, xla="XLA" in name)

        def call(function=function, operands=operands):
            return function(*operands)

        ms = timing.median_ms(call)
        rate = min_bytes / ms / 1e6
        peak = timing.peak_mb(call)
        has_rate = not name.startswith("TF")  # the filters of TensorFlow's convolutions have fewer bytes
        yield {
            "op": case.op,
            "note": case.note,
            "shape": case.shape,
            "pass": "forward+backward" if backward else "forward",
            "candidate": name,
            "ms": round(ms, 3),
            "minimum_mb": round(min_bytes / 1e6, 1),
            "gb_per_s": round(rate, 2) if has_rate else None,
            "of_copy": round(rate / copy, 3) if has_rate else None,
            "peak_mb": None if peak is None else round(peak, 1),
        }


def print_rows(case, backward, rows):
    passes = "forward + backward" if backward else "forward"
    shape = "x".join(str(size) for size in case.shape)
    print(f"\n{case.op} ({shape}; {case.note}), {passes}; at least {rows[0]['minimum_mb']} MB move")
    print(f"  {'':<15}{'ms':>10}{'GB/s':>9}{'of copy':>9}{'peak MB':>9}{'ours takes':>12}")
    for row in rows:
        rate = f"{row['gb_per_s']:>9.2f}{row['of_copy']:>9.0%}" if row["gb_per_s"] is not None else " " * 18
        peak = f"{row['peak_mb']:>9.0f}" if row["peak_mb"] is not None else " " * 9
        ratio = f"{rows[0]['ms'] / row['ms']:>11.2f}x"
        print(f"  {row['candidate']:<15}{row['ms']:>10.2f}{rate}{peak}{ratio}", flush=True)


if __name__ == "__main__":
    main()
