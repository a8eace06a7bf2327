# SPDX-License-Identifier: Apache-2.0
"""Defines the fixtures of all tests, and turns warnings into errors.

Environment variables:
    KERAS_DYNFILTER_REQUIRE_NATIVE=1: If the compiled ops are not available, their tests fail and are not skipped.
    KERAS_DYNFILTER_REQUIRE_ORT=1: If the ops for ONNX Runtime are not available, their tests fail and are not skipped.
    KERAS_DYNFILTER_DATA: The folder of the real data sets (default `shared/data` next to the checkout).
"""

import gc
import os
import pathlib
import random
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.custom_ops import units
from keras_dynfilter.ops.backends import library as ops_library
from tests.support.paths import ROOT

REQUIRE_NATIVE = os.environ.get("KERAS_DYNFILTER_REQUIRE_NATIVE", "0") not in ("", "0")
REQUIRE_XLA = REQUIRE_NATIVE and units.TensorFlow.installed().has_xla
REQUIRE_ORT = os.environ.get("KERAS_DYNFILTER_REQUIRE_ORT", "0") not in ("", "0")

THIRD_PARTY_WARNINGS = (
    "ignore:.*np.object.*:FutureWarning",
    "ignore:.*__array__ implementation doesn't accept a copy keyword.*:DeprecationWarning",
    "ignore:non-integer arguments to randrange:DeprecationWarning",  # Keras 2.15's set_random_seed
    "ignore:In the future `np.object` will be defined.*:FutureWarning",
)


def pytest_configure(config):
    # A suite that was started in the background ignores SIGINT, and so would the programs that tests start and stop.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "error")
    for warning in THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)
    if not REQUIRE_NATIVE:  # Without the compiled ops, the first call of an op warns.
        config.addinivalue_line("filterwarnings", "ignore:keras_dynfilter runs on composite TensorFlow ops")


@pytest.fixture(scope="module", autouse=True)
def free_memory():
    """Frees the networks of a test file, and excludes the objects that remain from garbage collection.

    TensorFlow and Keras keep about two million objects. Searching them in every collection took a tenth of a test run.
    """
    yield
    keras.backend.clear_session()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeds():
    """Sets the same seeds before every test."""
    random.seed(0)
    np.random.seed(0)
    tf.random.set_seed(0)


def _unavailable(name, reason, required):
    if required:
        pytest.fail(f"{name} required, but not available: {reason}")
    pytest.skip(f"{name} not available: {reason}")


@pytest.fixture(scope="session")
def native_library():
    """The loaded library of compiled ops."""
    library = ops_library.load()
    if library.ops is None:
        _unavailable("native ops", library.reason, REQUIRE_NATIVE)
    return library


@pytest.fixture(scope="session")
def native_ops(native_library):
    """The module of raw ops."""
    return native_library.ops


@pytest.fixture(params=["composite", "native"])
def implementation(request):
    """Name of an implementation, for `with keras_dynfilter.implementation(implementation):`."""
    if request.param == "native":
        request.getfixturevalue("native_library")
    return request.param


@pytest.fixture(scope="session")
def native_xla(native_library):
    """The loaded library of compiled ops, if the ops compile under XLA."""
    if not native_library.xla:
        _unavailable("XLA kernels of the native ops", native_library.xla_reason or "not built", REQUIRE_XLA)
    return native_library


@pytest.fixture(scope="session")
def ort_library():
    """Path of the library of ops for ONNX Runtime."""
    from keras_dynfilter import export

    try:
        return export.ort_library()
    except RuntimeError as error:
        _unavailable("ops for ONNX Runtime", error, REQUIRE_ORT)


@pytest.fixture
def xla_implementation(implementation, request):
    """Name of an implementation that runs inside `tf.function(jit_compile=True)`."""
    if implementation == "native":
        request.getfixturevalue("native_xla")
    return implementation


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=["channels_last", "channels_first"])
def data_format(request):
    return request.param


@pytest.fixture
def real_data():
    """Returns a function that returns the path of a real data set, or skips the test if the data set is missing."""
    folder = pathlib.Path(os.environ.get("KERAS_DYNFILTER_DATA") or ROOT.parent / "shared" / "data")

    def find(name):
        if not (folder / name).exists():
            pytest.skip(f"needs the data set {name}, which is not in {folder}")
        return folder / name

    return find


@pytest.fixture
def no_training(monkeypatch):
    """Returns a function that runs an experiment and stops it at the start of training.

    If training never starts, the test fails.
    """
    from examples.experiments.core import training

    def train(*_, **__):
        raise InterruptedError

    def run(main, *arguments):
        with pytest.raises(InterruptedError):
            main(*arguments)

    monkeypatch.setattr(training, "train_networks", train)
    return run


@pytest.fixture(scope="session")
def python():
    """Returns a function that runs Python with arguments in a new process and returns the completed process.

    The function fails if a signal ended the process. The timeout ends only processes that hang.
    """
    import subprocess
    import sys

    def run(*arguments, **environment):
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
        done = subprocess.run(
            [sys.executable, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=3600
        )
        assert done.returncode >= 0, f"killed by signal {-done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
        return done

    return run
