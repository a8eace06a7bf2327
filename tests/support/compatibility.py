# SPDX-License-Identifier: Apache-2.0
"""Runs a few tests of every part on the installed TensorFlow, and prints the results as a row of a Markdown table.

python -m tests.support.compatibility --install yes

`make test-tensorflow VERSION=2.18` calls it; docs/start/compatibility.md collects the rows. The reasons of all cells
other than `yes` are printed below the row. The exit status is 0 if no test fails.
"""

import argparse
import collections
import importlib.metadata
import platform
import sys

import pytest

EVERY_OP = "tests/export/test_every_op.py::test_every_op"
# Column of the table -> its tests. Files, functions or single cases; all of their tests apply to all versions.
TESTS = {
    "ops": (
        "tests/ops/test_forward.py::test_channels_first_dtypes",
        "tests/ops/test_gradient.py::test_channels_first",
        "tests/layers/test_contract.py::test_gradients_and_empty_batches",
    ),
    "XLA": (
        "tests/ops/test_forward.py::test_xla_channels_first",
        "tests/ops/test_gradient.py::test_xla_native_dtypes",
        "tests/layers/test_ddf2d_training.py::test_xla_gives_the_same_gradients",
    ),
    "fit": (
        "tests/layers/test_ddf2d_training.py::test_trains",
        "tests/layers/test_dynamic_training.py::test_default",
    ),
    "save": ("tests/layers/test_contract.py::test_files_and_clones",),
    "ONNX": (f"{EVERY_OP}[onnx-portable-float32]", "tests/export/test_onnx_native.py::test_report_has_both_sessions"),
    "SavedModel": (f"{EVERY_OP}[saved_model-portable-float32]", "tests/export/test_export.py::test_native_saved_model"),
    "LiteRT": (
        f"{EVERY_OP}[litert-portable-int8-float32]",
        "tests/export/test_litert.py::test_precisions_make_files_smaller_and_round",
    ),
}
PACKAGES = ("numpy", "protobuf", "onnx", "onnxruntime", "ai-edge-litert")
VERSIONS = ("TensorFlow", "Keras", "NumPy", "protobuf", "onnx", "onnxruntime", "ai-edge-litert", "Python", "machine")
COLUMNS = (*VERSIONS, "install", *TESTS)
CELLS = ("yes", "partly", "no", "fails", "not run")


class Outcomes:
    """A plugin of pytest that collects, for each column, how its tests end.

    Attributes:
        tests: Column -> ids of its tests, as in `TESTS`.
        passed: Column -> number of tests that passed.
        skipped: Column -> reason -> number of tests.
        failed: Column -> ids of tests.
    """

    def __init__(self, tests=TESTS):
        self.tests = tests
        self.passed = collections.Counter()
        self.skipped = collections.defaultdict(collections.Counter)
        self.failed = collections.defaultdict(list)

    def pytest_runtest_logreport(self, report):
        (column,) = [name for name, ids in self.tests.items() if report.nodeid.startswith(ids)]
        if report.failed:
            self.failed[column].append(report.nodeid)
        elif report.skipped:
            self.skipped[column][report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.passed[column] += 1

    def cell(self, column):
        """Returns a word of `CELLS`."""
        if self.failed[column]:
            return "fails"
        if self.skipped[column]:
            return "partly" if self.passed[column] else "no"
        return "yes" if self.passed[column] else "not run"

    def reasons(self):
        """Yields a line for each column whose cell is not `yes`."""
        for column in self.tests:
            if self.cell(column) != "yes":
                reasons = self.failed[column] or [*self.skipped[column]] or ["no test was found"]
                yield f"{column}: {self.cell(column)}: {'; '.join(reasons)}"


def versions():
    """Returns the cells of `VERSIONS`."""
    import keras
    import tensorflow as tf

    found = [tf.version.VERSION, keras.__version__]  # Keras can be from the package keras or keras-nightly
    for package in PACKAGES:
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("-")
    return [*found, platform.python_version(), platform.machine().replace("_", "-")]


def main(arguments=None):
    """Runs the tests and prints the row. Returns 0 if no test failed and every column has tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.compatibility", description=main.__doc__)
    parser.add_argument("--install", choices=CELLS, default="not run", help="the cell of the column `install`")
    install = parser.parse_args(arguments).install
    outcomes = Outcomes()
    # The exports take longest. They start first, so that both workers finish at about the same time.
    tests = [id for ids in reversed(TESTS.values()) for id in ids]
    options = ["-q", "-n", "2", "--maxschedchunk", "1", "--durations", "5"]
    status = pytest.main([*options, *tests], plugins=[outcomes])
    cells = [outcomes.cell(column) for column in TESTS]
    for cells_of_line in (COLUMNS, ["---"] * len(COLUMNS), [*versions(), install, *cells]):
        print(f"| {' | '.join(cells_of_line)} |")
    print("", *outcomes.reasons(), sep="\n")
    return 1 if status or "not run" in cells else 0


if __name__ == "__main__":
    sys.exit(main())
