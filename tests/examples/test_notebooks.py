# SPDX-License-Identifier: Apache-2.0
"""Runs the notebooks from top to bottom and counts their pictures; checks that notebooks are stored without outputs."""

import ast
import json
import os

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "examples" / "notebooks"
PICTURES = {"layers": 2, "training_to_edge": 2}


def code_cells(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == PICTURES.keys()


@pytest.mark.parametrize("name", PICTURES)
def test_outputs_are_not_stored(name):
    for cell in code_cells(name):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("name", PICTURES)
def test_the_first_cell_installs_the_package_only_if_it_is_missing(name):
    text = "".join(code_cells(name)[0]["source"]).replace("%pip", "pip_command #")
    _, condition = ast.parse(text).body
    assert ast.unparse(condition.test) == "importlib.util.find_spec('keras_dynfilter') is None"
    assert [ast.unparse(line) for line in condition.body] == ["pip_command"] and not condition.orelse
    assert '%pip install -q "keras_dynfilter[' in "".join(code_cells(name)[0]["source"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_notebooks_run(name, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for package in ("ipykernel", "matplotlib", "skimage", "tf2onnx", "onnxruntime", "ai_edge_litert"):
        pytest.importorskip(package)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    client.execute(env={**os.environ, "PYTHONPATH": paths})  # raises an error if a cell does
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert printed.strip()
    if name == "training_to_edge":
        assert printed.count("largest difference from Keras") == 5
