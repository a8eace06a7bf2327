# SPDX-License-Identifier: Apache-2.0
"""Tests the choice of the implementation, its reason, and the environment variable that requests one."""

import dataclasses
import doctest
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

import keras_dynfilter
from keras_dynfilter import ops
from keras_dynfilter.layers import DDF2D
from keras_dynfilter.ops import backends, pixel_projection
from keras_dynfilter.ops.backends import Choice, library, raw_ops, scope

pytestmark = pytest.mark.legacy

X = np.ones((1, 3, 3, 1), np.float32)
S = np.ones((1, 3, 3, 9), np.float32)
MISSING = library.Library(reason="there is no compiler")
CPU_ONLY = library.Library(ops=object(), xla_reason="too old")
CPU_AND_GPU = library.Library(ops=object(), cuda=True, xla=True)
FILTER_OPS = ("local_filter2d", "dynamic_depthwise_conv2d", "ddf2d")
CPU_OPS = ("project_and_pool", "separable_conv2d")


def call():
    return ops.local_filter2d(X, S, 3)


@pytest.fixture(autouse=True)
def nothing_requested(monkeypatch):
    monkeypatch.delenv(scope.VARIABLE, raising=False)


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that simulates a machine with a given library, and with or without a GPU."""

    def make(loaded, gpu=False):
        monkeypatch.setattr(library, "load", lambda: loaded)
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] if gpu and kind == "GPU" else [])

    return make


@pytest.fixture
def unavailable(machine):
    """Simulates a machine without the library, on which no warning was issued yet."""
    machine(MISSING)
    backends.warn_of_fallback.cache_clear()
    yield
    backends.warn_of_fallback.cache_clear()


NATIVE = Choice("native", "its kernels are loaded")
NO_LIBRARY = Choice("composite", "the compiled ops are not available: there is no compiler", is_fallback=True)
NO_CUDA = Choice("composite", "there is a GPU, and the library has no CUDA kernels", is_fallback=True)
CPU_KERNEL_ONLY = Choice("composite", "its compiled kernel runs on CPUs only, and there is a GPU")
REQUESTED = Choice("composite", "keras_dynfilter.implementation asks for it")


@pytest.mark.parametrize(
    "loaded, gpu, name, filter_choice, cpu_choice",
    [
        (CPU_ONLY, False, "auto", NATIVE, NATIVE),
        (CPU_ONLY, False, "native", NATIVE, NATIVE),
        (CPU_ONLY, False, "composite", REQUESTED, REQUESTED),
        (CPU_ONLY, True, "auto", NO_CUDA, CPU_KERNEL_ONLY),
        (CPU_ONLY, True, "native", NATIVE, CPU_KERNEL_ONLY),  # runs on the CPU, as requested
        (CPU_AND_GPU, False, "auto", NATIVE, NATIVE),
        (CPU_AND_GPU, True, "auto", NATIVE, CPU_KERNEL_ONLY),
        (CPU_AND_GPU, True, "native", NATIVE, CPU_KERNEL_ONLY),
        (CPU_AND_GPU, True, "composite", REQUESTED, REQUESTED),
        (MISSING, False, "auto", NO_LIBRARY, NO_LIBRARY),
        (MISSING, True, "auto", NO_LIBRARY, NO_LIBRARY),
        (MISSING, False, "composite", REQUESTED, REQUESTED),
    ],
)
def test_choice_and_reason(loaded, gpu, name, filter_choice, cpu_choice, machine):
    machine(loaded, gpu)
    with keras_dynfilter.implementation(name):
        assert [backends.choose(op) for op in FILTER_OPS] == [filter_choice] * 3
        assert [backends.choose(op) for op in CPU_OPS] == [cpu_choice] * 2
    assert {*FILTER_OPS, *CPU_OPS} == set(backends.OPS)


@pytest.mark.parametrize("op", backends.OPS)
@pytest.mark.parametrize("gpu", [False, True])
def test_native_requested_but_unavailable(op, gpu, machine, monkeypatch):
    machine(MISSING, gpu)
    message = " asks for the native ops, which are not available: there is no compiler"
    with keras_dynfilter.implementation("native"), pytest.raises(RuntimeError, match="implementation" + message):
        backends.choose(op)
    monkeypatch.setenv(scope.VARIABLE, "native")
    with pytest.raises(RuntimeError, match=f"the environment variable {scope.VARIABLE}{message}"):
        backends.choose(op)


def test_unknown_op():
    with pytest.raises(ValueError, match=r"Expected `op` to be one of 'local_filter2d'.*Received: op='conv'"):
        backends.choose("conv")


@pytest.mark.parametrize(
    "loaded, gpu, name, expected",
    [
        (CPU_AND_GPU, False, "auto", True),
        (CPU_ONLY, False, "auto", False),
        (CPU_ONLY, True, "auto", True),
        (CPU_ONLY, True, "native", False),
        (CPU_ONLY, False, "composite", True),
        (MISSING, False, "auto", True),
    ],
)
def test_jit_needs_composite_ops_or_a_library_with_xla(loaded, gpu, name, expected, machine):
    machine(loaded, gpu)
    with keras_dynfilter.implementation(name):
        assert backends.supports_jit() is expected
        if not keras.__version__.startswith("2."):
            assert DDF2D().supports_jit is expected


@pytest.fixture
def without_xla(native_library, monkeypatch):
    """The compiled ops, as TensorFlow 2.19 and older versions have them."""
    monkeypatch.setattr(library, "_loaded", dataclasses.replace(native_library, xla=False, xla_reason="too old"))
    backends.warn_of_fallback.cache_clear()
    yield
    backends.warn_of_fallback.cache_clear()


def test_functions_that_xla_compiles_contain_ops_that_it_can_compile(without_xla):
    """Native ops without XLA kernels are replaced there, and only there."""
    inner = tf.function(call)
    with pytest.warns(RuntimeWarning, match="XLA cannot compile the compiled ops: too old"):
        compiled = tf.function(lambda: inner() + call(), jit_compile=True)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = tf.function(call).get_concrete_function().graph
        assert any(op.type.startswith("KerasDynfilter>") for op in graph.get_operations())
        np.testing.assert_allclose(compiled, 2 * call(), rtol=1e-6)
        assert backends.choose("ddf2d") == NATIVE


def test_native_requested_in_functions_that_xla_compiles(without_xla):
    with keras_dynfilter.implementation("native"), pytest.raises(RuntimeError, match="XLA cannot compile: too old"):
        tf.function(call, jit_compile=True)()


@pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 does not read supports_jit")
def test_fit_without_xla_kernels(without_xla):
    """`jit_compile="auto"` trains on the native ops without XLA; for `True`, Keras says that it does so, too."""
    model = keras.Sequential([DDF2D()])
    model.compile("sgd", "mse", jit_compile="auto")
    assert model.jit_compile is False
    model.fit(X, X, verbose=0)
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    model.fit(X, X, verbose=0)


def test_composite_never_loads_the_library(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: pytest.fail("the library was loaded"))
    with keras_dynfilter.implementation("composite"):
        call()
        pixel_projection.project_and_pool(*(tf.ones(shape) for shape in ((1, 3, 3, 1), (1, 2), (2,))))
        assert backends.supports_jit()


def test_fallback_warns_once_at_the_call(unavailable):
    with pytest.warns(RuntimeWarning, match="composite TensorFlow ops.*there is no compiler") as caught:
        expected = call()
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(call(), expected)


def test_no_warning_if_composite_is_requested_or_no_op_is_called(unavailable):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with keras_dynfilter.implementation("composite"):
            call()
        backends.choose("ddf2d")
        backends.supports_jit()


@pytest.mark.parametrize("function", FILTER_OPS)
def test_graph_contains_the_requested_implementation(function, implementation):
    """A traced function keeps the implementation under which it was traced."""
    arguments = {
        "local_filter2d": dict(inputs=X, filters=S, kernel_size=3),
        "ddf2d": dict(inputs=X, channel_filters=np.ones((1, 3, 3, 1), np.float32), spatial_filters=S),
        "dynamic_depthwise_conv2d": dict(inputs=X, filters=np.ones((1, 3, 3, 1), np.float32)),
    }[function]
    traced = tf.function(lambda: getattr(ops, function)(**arguments))
    with keras_dynfilter.implementation(implementation):
        graph = traced.get_concrete_function().graph
    assert any(op.type.startswith("KerasDynfilter>") for op in graph.get_operations()) == (implementation == "native")


@pytest.mark.parametrize("raw_op", raw_ops.RAW_OPS, ids=lambda raw_op: raw_op.name)
def test_table_agrees_with_the_library(raw_op, native_ops):
    definition = op_def_registry.get(raw_op.type)
    assert [argument.name for argument in definition.input_arg] == list(raw_op.inputs.values())
    assert {attribute.name for attribute in definition.attr} == {"T", *raw_op.attributes}
    assert callable(getattr(native_ops, f"keras_dynfilter_{raw_op.function}"))


def test_table_has_every_derivative():
    factors = {"spatial": 1, "softmax": 1, "channel": 1, "mul": 2, "add": 2}
    for kind, count in factors.items():
        assert sum(key[0] == kind for key in raw_ops.TABLE) == 2 + count  # forward, inputs, each factor


def test_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "composite")
    assert backends.choose("ddf2d") == Choice("composite", f"the environment variable {scope.VARIABLE} asks for it")
    with keras_dynfilter.implementation("auto"):
        assert scope.requested()[0] == "auto"


def test_empty_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "")
    assert scope.requested()[0] == "auto"


def test_wrong_environment_variable(monkeypatch):
    monkeypatch.setenv(scope.VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"{scope.VARIABLE}.*'fast'"):
        call()


def test_docstring_example():
    globs = dict(implementation=keras_dynfilter.implementation, ops=ops, inputs=X, filters=S)
    (example,) = doctest.DocTestFinder().find(keras_dynfilter.implementation, "implementation", globs=globs)
    assert example.examples
    doctest.DebugRunner().run(example)
