# SPDX-License-Identifier: Apache-2.0
"""No part of the project runs code that a file contains. SECURITY.md promises it."""

import ast
import json
import re

import pytest

from tests.support.paths import ROOT

FOLDERS = ("benchmarks", "custom_ops", "examples", "export", "keras_dynfilter", "release")
# Modules whose readers build any object that a file names, and modules that unpack archives without checks.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "yaml"}
# Calls by their last name, or by module and name.
CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "os.system": "runs text in a shell",
    "os.popen": "runs text in a shell",
    "extractall": "unpacks all members of an archive",
    "unpack_archive": "unpacks all members of an archive",
    "enable_unsafe_deserialization": "switches the safe mode of Keras off",
    "Unpickler": "unpickles",
}
ARGUMENTS = {
    "weights_only": True,
    "allow_pickle": False,
    "safe_mode": True,
    "shell": False,
    "extract": False,
    "untar": False,
}
# The option --unsafe of the exporter is the only way to run code of a model. The authors' weights are files of PyTorch,
# which `torch.load(..., weights_only=True)` reads without building any object that the file names.
ALLOWED = {
    ("export/model_loading.py", "safe_mode=not unsafe"),
    ("keras_dynfilter/models/ddf/state_files.py", "import of torch"),
}


def sources():
    """Yields the path and the text of every Python source except the tests, including the cells of notebooks."""
    files = [file for folder in FOLDERS for pattern in ("*.py", "*.ipynb") for file in (ROOT / folder).rglob(pattern)]
    for file in (ROOT / "setup.py", *files):
        text = file.read_text()
        if file.suffix == ".ipynb":
            cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            text = "\n".join("".join(cell) for cell in cells)
            text = re.sub(r"^( *)[%!].*", r"\1pass", text, flags=re.MULTILINE)  # commands of the notebook
        yield file.relative_to(ROOT).as_posix(), text


def problems(name, text):
    """Returns the constructs in a source that could run code from a file, or follow an archive anywhere."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import of {module}" for module in modules if module.split(".")[0] in MODULES]
        if isinstance(node, ast.Attribute) and "datasets" in ast.unparse(node.value) and node.attr == "load_data":
            found.append("keras.datasets unpickles")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        called = called if called in CALLS else called.split(".")[-1]
        # `module.eval` is a method of another object; `eval` is the function of Python.
        if called in CALLS and (called not in ("eval", "exec") or isinstance(node.func, ast.Name)):
            found.append(f"{called}, which {CALLS[called]}")
        if ast.unparse(node.func) == "torch.load" and "weights_only" not in {keyword.arg for keyword in node.keywords}:
            found.append("torch.load without weights_only")
        for keyword in node.keywords:
            if keyword.arg in ARGUMENTS:
                written = f"{keyword.arg}={ast.unparse(keyword.value)}"
                is_safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is ARGUMENTS[keyword.arg]
                if not is_safe:
                    found.append(written)
    if "http://" in text.replace("http://www.apache.org", ""):
        found.append("an address that is not encrypted")
    return [problem for problem in found if (name, problem) not in ALLOWED]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("import pickle", "import of pickle"),
        ("from joblib import load", "import of joblib"),
        ("import yaml.loader", "import of yaml.loader"),
        ("def f():\n    return np.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("np.load(path, allow_pickle=trusted)", "allow_pickle=trusted"),
        ("torch.load(path)", "torch.load without weights_only"),
        ("torch.load(path, weights_only=False)", "weights_only=False"),
        ("keras.saving.load_model(path, safe_mode=False)", "safe_mode=False"),
        ("keras.config.enable_unsafe_deserialization()", "enable_unsafe_deserialization, which switches"),
        ("keras.datasets.cifar10.load_data()", "keras.datasets unpickles"),
        ("load = tf.keras.datasets.mnist.load_data", "keras.datasets unpickles"),
        ("eval(text)", "eval, which runs text as code"),
        ("os.system(text)", "os.system, which runs text in a shell"),
        ("archive.extractall(folder)", "extractall, which unpacks"),
        ("subprocess.run(text, shell=True)", "shell=True"),
        ("keras.utils.get_file(name, url, extract=True)", "extract=True"),
        ("url = 'http://example.org'", "an address that is not encrypted"),
    ],
)
def test_problems_are_found(text, problem):
    (found,) = problems("a.py", text)
    assert found.startswith(problem)


def test_no_source_runs_code_of_a_file():
    found = {name: problems(name, text) for name, text in sources()}
    assert len(found) > 150
    assert not {name: constructs for name, constructs in found.items() if constructs}


def test_exceptions_are_needed():
    texts = dict(sources())
    for name, problem in ALLOWED:
        assert problem in problems("another file", texts[name])
