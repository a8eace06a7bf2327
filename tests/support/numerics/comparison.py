# SPDX-License-Identifier: Apache-2.0
"""Compares random problems in all implementations with the true results, and prints the largest errors.

python -m tests.support.numerics.comparison --problems 10000

An error is given as a fraction of its derived bound. The exit status is 1 if an error exceeds its bound, if infinities
or NaN are not where the truth has them, or if hosts of the compiled ops compute different bits.
"""

import argparse
import collections
import json
import pathlib
import sys

import numpy as np

from tests.support.numerics import implementations, problems, truth
from tests.support.numerics.rounding import FORMATS, compare

SEED = 20
ORDERS = ("output", "first", "second")
IMPLEMENTATIONS = ("native", "native, XLA", "composite", "composite, XLA")
# XLA takes long to compile the composite ops, so it does so for one signature of this number, which shares no factor
# with the numbers of ops and dtypes: all of them occur.
COMPOSITE_XLA_EVERY = 7


class Comparison:
    """The figures and the faults of a range of problems.

    Attributes:
        figures: `(op, dtype, implementation, order)` -> largest error as a fraction of its bound.
        faults: Descriptions of wrong results.
        problems, results: The numbers of problems, and of results that were compared.
    """

    def __init__(self, seed=SEED, names=IMPLEMENTATIONS, ort_library=None):
        self.seed, self.names, self.ort_library = seed, names, ort_library
        self.figures = collections.defaultdict(float)
        self.faults = []
        self.problems = self.results = 0

    def run(self, numbers, report=lambda text: None):
        """Computes the problems `numbers`, a range."""
        group, functions = None, {}
        for number in numbers:
            problem, known = problems.draw(self.seed, number), len(self.faults)
            if group != number // problems.PER_SIGNATURE:
                group = number // problems.PER_SIGNATURE
                functions = self._functions(problem.signature, group)
            self._check(problem, number, functions)
            self.problems += 1
            for fault in self.faults[known:]:
                report(fault)

    def _functions(self, signature, group):
        names = [name for name in self.names if name != "composite, XLA" or group % COMPOSITE_XLA_EVERY == 0]
        functions = {name: implementations.in_tensorflow(signature, name) for name in names}
        if self.ort_library and signature.op in problems.cases.FILTER_OPS:
            functions["onnxruntime"] = implementations.in_onnxruntime(signature, self.ort_library)
        return functions

    def _check(self, problem, number, functions):
        true_results = truth.results(problem)
        computed = {}
        for name, function in functions.items():
            results = function(problem)
            computed[name] = [[results[0]]] if name == "onnxruntime" else results
            for order, actual, expected in zip(ORDERS, computed[name], true_results):
                for index, (value, wanted) in enumerate(zip(actual, expected)):
                    self._compare(problem, number, name, order, index, value, wanted)
        for name in ("native, graph", "native, XLA", "onnxruntime"):
            if {name, "native"} <= {*computed}:
                self._compare_bits(problem, number, name, computed["native"], computed[name])

    def _compare(self, problem, number, name, order, index, value, wanted):
        what = f"problem {number}: {problem.op}, {problem.dtype}, {problem.distribution}, {name}, {order} {index}"
        if (value is None) != (wanted is None):
            self.faults.append(f"{what}: no gradient, or one that should not exist")
        if value is None or wanted is None:
            return
        if problem.distribution == "special" and order == "second" and name.startswith("composite"):
            return  # docs/design/numerics.md: TensorFlow's gradients of masks multiply infinities by zero
        ratio, wrong = compare(as_float64(value), wanted, FORMATS[problem.dtype])
        key = (problem.op, problem.dtype, name, order)
        self.figures[key] = max(self.figures[key], ratio)
        self.results += wanted.value.size
        if wrong:
            self.faults.append(f"{what}: {wrong} of {wanted.value.size} results are wrong, {ratio:.3g} bounds")

    def _compare_bits(self, problem, number, name, native, other):
        """The hosts call the same kernels, for the filter ops up to first order, so the bits are equal."""
        orders = ORDERS[:1] if problem.op not in problems.cases.FILTER_OPS else ORDERS[:2]
        if problem.kind in ("bank", "banks"):  # TensorFlow's matrix product
            return
        for order, one, two in zip(orders, native, other):
            for index, (a, b) in enumerate(zip(one, two)):
                if not np.array_equal(as_float64(a), as_float64(b), equal_nan=True):
                    what = f"{problem.op}, {problem.dtype}, {problem.distribution}, {order} {index}"
                    self.faults.append(f"problem {number}: {what}: the bits of native and {name} differ")

    def dump(self):
        """Returns figures and numbers as JSON values, for `load` in a later process."""
        figures = [[list(key), value] for key, value in self.figures.items()]
        return {"problems": self.problems, "results": self.results, "faults": self.faults, "figures": figures}

    def load(self, values):
        self.problems, self.results, self.faults = values["problems"], values["results"], values["faults"]
        self.figures.update({tuple(key): value for key, value in values["figures"]})


def as_float64(value):
    """Converts a tensor or an array to float64."""
    return np.asarray(value).astype(np.float64)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10_000, help="number of problems (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first problem (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of all problems (default: %(default)s)")
    parser.add_argument("--figures", type=pathlib.Path, help="file of figures of earlier parts, to which to add")
    options = parser.parse_args(arguments)
    from keras_dynfilter import export

    comparison = Comparison(options.seed, ort_library=export.ort_library())
    if options.figures and options.figures.exists():
        comparison.load(json.loads(options.figures.read_text()))
    end = options.first + options.problems
    for first in range(options.first, end, problems.PER_SIGNATURE):
        comparison.run(range(first, min(first + problems.PER_SIGNATURE, end)), lambda text: print(text, flush=True))
        if options.figures:
            options.figures.write_text(json.dumps(comparison.dump()))
    print(tables(comparison.figures))
    print(f"{comparison.problems} problems, {comparison.results} results, {len(comparison.faults)} faults")
    return 1 if comparison.faults else 0


def tables(figures):
    """Returns Markdown tables of the largest errors: by op and dtype, and by implementation and order."""
    names = (*IMPLEMENTATIONS, "onnxruntime")
    return "\n\n".join(
        [
            _table("op", problems.OPS, FORMATS, figures, lambda key: key[:2]),
            _table("implementation", names, ORDERS, figures, lambda key: key[2:]),
        ]
    )


def _table(title, rows, columns, figures, place):
    lines = [f"| {title} | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        cells = [[value for key, value in figures.items() if place(key) == (row, column)] for column in columns]
        lines.append(f"| {row} | {' | '.join(f'{max(values):.2f}' if values else '' for values in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
