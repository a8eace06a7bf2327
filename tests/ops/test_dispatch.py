# SPDX-License-Identifier: Apache-2.0
"""Which implementation runs: the context manager, the environment, and what happens where the library is missing."""

import doctest
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import ops
from keras_dynfilter.ops.backends import dispatch, library, scope

pytestmark = pytest.mark.legacy

X = np.ones((1, 3, 3, 1), np.float32)
S = np.ones((1, 3, 3, 9), np.float32)


def call():
    return ops.local_filter2d(X, S, 3)


@pytest.fixture
def unavailable(monkeypatch):
    """The library cannot be had, and nobody was told yet."""
    missing = library.Library(reason="there is no compiler")
    monkeypatch.setattr(library, "load", lambda: missing)
    monkeypatch.setattr(dispatch, "_warned", False)
    monkeypatch.delenv(scope.VARIABLE, raising=False)


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch):
    monkeypatch.delenv(scope.VARIABLE, raising=False)


def requested():
    return scope.requested()[0]


def test_default():
    assert requested() == "auto"


def test_nested_and_restored():
    with keras_dynfilter.implementation("composite"):
        with keras_dynfilter.implementation("auto"):
            assert requested() == "auto"
        assert requested() == "composite"
    assert requested() == "auto"


def test_restored_after_an_exception():
    with pytest.raises(KeyError), keras_dynfilter.implementation("composite"):
        raise KeyError
    assert requested() == "auto"


def test_takes_effect_on_entry():
    context = keras_dynfilter.implementation("composite")
    assert requested() == "auto"
    with context:
        assert requested() == "composite"


def test_belongs_to_the_thread():
    seen = []
    with keras_dynfilter.implementation("composite"):
        thread = threading.Thread(target=lambda: seen.append(requested()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


@pytest.mark.parametrize("name", ["cuda", "", None, 1])
def test_wrong_name(name):
    expected = r"Expected `name` to be one of 'auto', 'native', 'composite'\. Received: name="
    with pytest.raises(ValueError, match=expected), keras_dynfilter.implementation(name):
        pass
    assert requested() == "auto"


def test_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "composite")
    assert requested() == "composite"
    with keras_dynfilter.implementation("auto"):
        assert requested() == "auto"


def test_empty_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "")
    assert requested() == "auto"


def test_wrong_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"{scope.VARIABLE}.*'fast'"):
        call()


def test_composite_never_loads_the_library(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: pytest.fail("the library was loaded"))
    with keras_dynfilter.implementation("composite"):
        call()


def test_falls_back_with_one_warning(unavailable):
    with pytest.warns(RuntimeWarning, match="composed TensorFlow ops.*there is no compiler") as caught:
        expected = call()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(call(), expected)


def test_native_demanded_but_unavailable(unavailable):
    message = r"implementation asks for the native ops.*there is no compiler"
    with keras_dynfilter.implementation("native"), pytest.raises(RuntimeError, match=message):
        call()


def test_native_demanded_by_the_environment(unavailable, monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "native")
    with pytest.raises(RuntimeError, match=f"{scope.VARIABLE} asks for the native ops.*there is no compiler"):
        call()


@pytest.mark.parametrize("function", ["local_filter2d", "ddf2d", "dynamic_depthwise_conv2d"])
def test_the_graph_holds_what_was_asked_for(function, implementation):
    """A traced function keeps the implementation under which it was traced."""
    given = {
        "local_filter2d": dict(inputs=X, filters=S, kernel_size=3),
        "ddf2d": dict(inputs=X, channel_filters=np.ones((1, 3, 3, 1), np.float32), spatial_filters=S),
        "dynamic_depthwise_conv2d": dict(inputs=X, filters=np.ones((1, 3, 3, 1), np.float32)),
    }[function]
    traced = tf.function(lambda: getattr(ops, function)(**given))
    with keras_dynfilter.implementation(implementation):
        graph = traced.get_concrete_function().graph
    assert any(op.type.startswith("KerasDynfilter>") for op in graph.get_operations()) == (implementation == "native")


def test_docstring_example():
    globs = dict(implementation=keras_dynfilter.implementation, ops=ops, inputs=X, filters=S)
    (example,) = doctest.DocTestFinder().find(keras_dynfilter.implementation, "implementation", globs=globs)
    assert example.examples
    doctest.DebugRunner().run(example)
