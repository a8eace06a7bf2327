# SPDX-License-Identifier: Apache-2.0
"""Checks that the imports have no cycle, that no part imports a higher part, and which folders are in the package."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytest.importorskip("importlinter")
CONTRACTS = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]


def lint(folder):
    """Checks the import contracts of `pyproject.toml` in `folder`. Returns the exit status and the report."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    command += ["pyproject.toml", "--no-cache", "--no-logo", "--verbose"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": "."})
    return done.returncode, done.stdout + done.stderr


def test_imports_keep_the_contracts():
    status, report = lint(ROOT)
    assert status == 0, report
    assert "3 kept, 0 broken" in report


@pytest.mark.parametrize(
    "importer, statement, contract",
    [
        ("keras_dynfilter/ops/a.py", "def f():\n    from keras_dynfilter.ops import b", "No import cycle"),
        ("keras_dynfilter/ops/a.py", "from keras_dynfilter.layers import c", "imports only from parts below it"),
        ("keras_dynfilter/ops/a.py", "def f():\n    import benchmarks.d", "does not import examples or benchmarks"),
    ],
)
def test_broken_contracts_are_found(tmp_path, importer, statement, contract):
    parts = ["export", "info", "inspection", "models", "layers", "regularizers", "ops"]
    parts += ["custom_ops", "environment", "untrusted", "version"]
    packages = [f"keras_dynfilter/{part}" for part in parts]
    for package in ["keras_dynfilter", *packages, "benchmarks", "examples"]:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "keras_dynfilter" / "ops" / "b.py").write_text("from keras_dynfilter.ops import a\n")
    (tmp_path / "keras_dynfilter" / "layers" / "c.py").touch()
    (tmp_path / "benchmarks" / "d.py").touch()
    (tmp_path / "pyproject.toml").write_text("[tool.importlinter]" + CONTRACTS)
    (tmp_path / importer).write_text("")
    assert lint(tmp_path)[0] == 0
    (tmp_path / importer).write_text(statement + "\n")
    status, report = lint(tmp_path)
    assert status == 1
    broken = [line for line in report.splitlines() if line.endswith("BROKEN")]
    assert any(contract in line for line in broken), report


@pytest.mark.parametrize("name, folder", [("export", "export"), ("custom_ops", "custom_ops")])
def test_top_level_folders_in_the_package(name, folder):
    spec = importlib.util.find_spec(f"keras_dynfilter.{name}")
    assert pathlib.Path(spec.origin).resolve() == ROOT / folder / "__init__.py"


@pytest.mark.parametrize("name", ["tests", "examples", "benchmarks", "setup", "docs"])
def test_top_level_folders_outside_the_package(name):
    assert importlib.util.find_spec(f"keras_dynfilter.{name}") is None


@pytest.mark.parametrize("module", ["keras_dynfilter.export.formats", "keras_dynfilter.custom_ops.build"])
def test_editors_find_modules(module):
    """Static analysis, which does not run import hooks, finds the modules in the top-level folders of the checkout."""
    jedi = pytest.importorskip("jedi")
    (name,) = jedi.Script(f"import {module}", project=jedi.Project(ROOT)).goto(1, len(f"import {module}"))
    assert name.full_name == module
    folder, file = module.split(".")[1:]
    assert pathlib.Path(name.module_path).resolve() == ROOT / folder / f"{file}.py"
