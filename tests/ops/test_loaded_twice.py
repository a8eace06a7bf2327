# SPDX-License-Identifier: Apache-2.0
"""The libraries of ops loaded by several paths and by several copies of the package in one process."""

import pytest

pytestmark = pytest.mark.legacy

PREPARE = """
import importlib, pathlib, shutil, sys
import tensorflow as tf
X, S = tf.random.normal([1, 4, 4, 2]), tf.random.normal([1, 4, 4, 9])

def use(jit):
    '''Runs an op eagerly, in a graph and under XLA, with gradients. Returns the implementation.'''
    from keras_dynfilter import ops
    from keras_dynfilter.ops import backends

    def step(x, s):
        with tf.GradientTape() as tape:
            tape.watch([x, s])
            y = ops.local_filter2d(x, s, 3)
        return y, *tape.gradient(y, [x, s])

    compiled = [tf.function(step), *([tf.function(step, jit_compile=True)] if jit else [])]
    for function in compiled:
        for actual, expected in zip(function(X, S), step(X, S)):
            tf.debugging.assert_near(actual, expected)
    return backends.choose("local_filter2d")

def copy(path, folder):
    '''Copies a library, so that it has another path.'''
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    return shutil.copy(path, folder)

def forget_package():
    for name in [name for name in sys.modules if name.split(".")[0] == "keras_dynfilter"]:
        del sys.modules[name]
"""
TWICE = (
    PREPARE
    + """
from keras_dynfilter.ops.backends import library
first = library.load()

def same(other):
    return all(getattr(other, name) == getattr(first, name) for name in ("ops", "cuda", "xla", "paths", "reason"))

assert use(first.xla).name == "native"
importlib.reload(library)
assert use(first.xla).name == "native" and same(library.load()), library.load()
for path in first.paths:  # by another path, with TensorFlow's own function
    tf.load_op_library(copy(path, sys.argv[1]))
assert use(first.xla).name == "native"
forget_package()  # a second copy of the package
from keras_dynfilter.ops.backends import library as second
assert second is not library
assert use(first.xla).name == "native" and same(second.load()), second.load()
print("passed")
"""
)
BEFORE = (
    PREPARE
    + """
tf.load_op_library(copy(sys.argv[2], sys.argv[1]))
from keras_dynfilter.ops.backends import library
loaded = library.load()
assert use(loaded.xla).name == "native"
assert loaded.paths[0].startswith(sys.argv[1]), loaded.paths
assert loaded.xla == (len(sys.argv) > 3), loaded
print("passed")
"""
)
ANOTHER_VERSION = (
    PREPARE
    + """
from keras_dynfilter.custom_ops import sources
from keras_dynfilter.ops.backends import library
path = pathlib.Path(sys.argv[2])
other = pathlib.Path(copy(path, sys.argv[1]))
name = path.name if sys.argv[3] == "renamed" else path.name.replace(sources.ops_version(), "0" * 16)
other = other.rename(other.with_name("renamed.so" if sys.argv[3] == "renamed" else name))
tf.load_op_library(str(other))
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    choice = use(True)
assert choice.name == "composite" and "has already loaded another version of the ops" in choice.reason, choice
print("passed")
"""
)


def run(python, code, *arguments):
    done = python("-c", code, *map(str, arguments))
    assert done.returncode == 0 and done.stdout.endswith("passed\n"), done.stdout + done.stderr[-4000:]


def test_a_second_load_uses_the_first(native_library, python, tmp_path):
    run(python, TWICE, tmp_path / "copy")


@pytest.mark.slow
def test_ops_that_the_user_has_loaded_are_used(native_library, python, tmp_path):
    run(python, BEFORE, tmp_path / "copy", *native_library.paths)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["another version", "renamed"])
def test_another_version_is_refused_in_a_sentence(way, native_library, python, tmp_path):
    run(python, ANOTHER_VERSION, tmp_path / "copy", native_library.paths[0], way)
