# SPDX-License-Identifier: Apache-2.0
"""Tests what the import of the package says about a missing, too old or untested TensorFlow or Keras.

The modules `tensorflow` and `keras` are stubs here, except in the test of the backend.
"""

import re
import subprocess
import sys
import warnings

import pytest

from keras_dynfilter import environment
from tests.support.paths import ROOT

KERAS = "__version__ = '3.9.2'\nclass backend:\n    backend = staticmethod(lambda: 'tensorflow')"
TENSORFLOW = "__version__ = '2.18.1'"


def start(folder, code="import keras_dynfilter.environment", **modules):
    """Runs code in a process in which TensorFlow and Keras are the given texts; None means that one is missing."""
    package = folder / "keras_dynfilter"
    package.mkdir()
    (package / "__init__.py").touch()  # imports nothing else, which would need the real TensorFlow
    (package / "environment.py").write_text((ROOT / "keras_dynfilter/environment.py").read_text())
    for name, text in {"tensorflow": TENSORFLOW, "keras": KERAS, **modules}.items():
        if text is not None:
            (folder / f"{name}.py").write_text(text)
    # -I and -S: neither the checkout nor any installed package can be imported.
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)


def test_tested_versions_import_without_a_word(tmp_path):
    done = start(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name, package", [("tensorflow", "TensorFlow"), ("keras", "Keras")])
@pytest.mark.parametrize("text, state", [(None, "not installed"), ("", "installed incompletely")])
def test_missing_package(name, package, text, state, tmp_path):
    done = start(tmp_path, **{name: text})
    assert done.returncode == 1 and "During handling" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: keras_dynfilter needs {package} 2.15 or newer, which is {state}: pip install")


def test_an_installed_package_that_misses_another_one_keeps_its_error(tmp_path):
    done = start(tmp_path, tensorflow="import google.protobuf")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'google'"


def test_untested_versions_warn_once(tmp_path):
    code = "import keras_dynfilter.environment, importlib; importlib.import_module('keras_dynfilter.environment')"
    done = start(tmp_path, code, tensorflow="__version__ = '2.99.0-dev2027'", keras=KERAS.replace("3.9.2", "4.0.1"))
    assert done.returncode == 0, done.stderr
    warned = re.findall("RuntimeWarning: (.*)", done.stderr)
    assert len(warned) == 2
    assert warned[0].endswith("and not with TensorFlow 2.99.0-dev2027, which is installed here")
    assert warned[1].startswith("keras_dynfilter has been tested with Keras 2.15 and 3.3 to ")


@pytest.mark.parametrize(
    "package, version",
    [
        *(("TensorFlow", version) for version in ("2.15.0", "2.15.1", "2.16.2", "2.22.0rc0", "2.22.0-rc0")),
        *(("Keras", version) for version in ("2.15.0", "3.3.0", "3.16.0.dev2026102704")),
    ],
)
def test_tested_versions(package, version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.check_version(package, version)


@pytest.mark.parametrize(
    "package, version", [("TensorFlow", "2.23.0"), ("TensorFlow", "3.0.0"), ("Keras", "3.2.1"), ("Keras", "3.17.0")]
)
def test_untested_versions(package, version):
    with pytest.warns(RuntimeWarning, match=rf"tested with {package} 2\.15.* not with {package} {version}"):
        environment.check_version(package, version)


@pytest.mark.parametrize("package, version", [("TensorFlow", "2.14.1"), ("TensorFlow", "1.15.5"), ("Keras", "2.14.0")])
def test_versions_that_are_too_old(package, version):
    with pytest.raises(ImportError, match=rf"Expected {package} 2\.15 or newer\. Received: {package} {version}"):
        environment.check_version(package, version)


def test_the_command_that_installs_an_extra_keeps_tensorflow(monkeypatch):
    """An onnx that does not fit protobuf of the installed TensorFlow would replace it."""
    packages = {"tensorflow": ["tensorflow_cpu", "tensorflow_cpu"], "onnx": ["onnx"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: packages)
    monkeypatch.setattr("importlib.metadata.version", {"tensorflow_cpu": "2.19.1"}.get)
    assert environment.install_command("export") == "pip install 'keras_dynfilter[export]' 'tensorflow_cpu==2.19.1'"
    packages.clear()
    assert environment.install_command("litert") == "pip install 'keras_dynfilter[litert]'"


def test_other_backends_of_keras_are_refused(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Expected Keras to use the TensorFlow backend.*Received: .*'jax'"):
        environment.check_backend()


def test_the_extra_installs_a_tested_version():
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    major, minor = environment.TESTED["TensorFlow"][-1][1].split(".")
    assert extras["tensorflow"] == [f"tensorflow>=2.15.1,<{major}.{int(minor) + 1}"]
