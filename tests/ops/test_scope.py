# SPDX-License-Identifier: Apache-2.0
"""Tests `implementation` and `inference_only`: the code to which a block applies, in threads, tasks and generators."""

import asyncio
import contextlib
import threading

import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops.backends import scope

pytestmark = pytest.mark.legacy


@pytest.fixture(autouse=True)
def nothing_requested(monkeypatch):
    monkeypatch.delenv(scope.VARIABLE, raising=False)


def requested():
    return scope.requested()[0]


def test_default():
    assert requested() == "auto"


def test_scopes_nest_and_end():
    with keras_dynfilter.implementation("composite"):
        with keras_dynfilter.implementation("auto"):
            assert requested() == "auto"
        assert requested() == "composite"
    assert requested() == "auto"


def test_exception_ends_a_scope():
    with pytest.raises(KeyError), keras_dynfilter.implementation("composite"):
        raise KeyError
    assert requested() == "auto"


def test_scope_begins_on_entry():
    context = keras_dynfilter.implementation("composite")
    assert requested() == "auto"
    with context:
        assert requested() == "composite"


def test_scope_applies_to_its_thread_only():
    names = []
    with keras_dynfilter.implementation("composite"):
        thread = threading.Thread(target=lambda: names.append(requested()))
        thread.start()
        thread.join()
    assert names == ["auto"]


@pytest.mark.parametrize("name", ["cuda", "", None, 1])
def test_wrong_name(name):
    expected = r"Expected `name` to be one of 'auto', 'native', 'composite'\. Received: name="
    with pytest.raises(ValueError, match=expected), keras_dynfilter.implementation(name):
        pass
    assert requested() == "auto"


def in_thread(function):
    """Runs a function in a new thread and returns its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def suspended(name):
    """Returns a generator that is suspended inside a block."""

    def generator():
        with keras_dynfilter.implementation(name):
            yield requested()
            yield requested()

    started = generator()
    assert next(started) == name
    return started


def test_a_generator_that_ends_late_restores_nothing():
    """A block that a generator holds open ends inside another block, which it was entered before."""
    generator = suspended("composite")
    with keras_dynfilter.implementation("native"):
        assert requested() == "native"
        generator.close()
        assert requested() == "native"
    assert requested() == "auto"


def test_a_generator_that_outlives_the_block_around_it():
    with keras_dynfilter.implementation("native"):
        generator = suspended("composite")
    assert requested() == "composite"  # generators have no context of their own
    generator.close()
    assert requested() == "auto"


def test_a_generator_that_is_garbage_ends_its_block():
    suspended("composite")
    assert requested() == "auto"


def test_two_generators_take_turns():
    first, second = suspended("composite"), suspended("native")
    first.close()
    assert requested() == "native"
    second.close()
    assert requested() == "auto"


def test_a_generator_that_another_thread_closes():
    generator = suspended("composite")
    in_thread(generator.close)
    assert requested() == "auto"
    assert in_thread(requested) == "auto"
    with keras_dynfilter.implementation("native"):
        assert requested() == "native"
    assert requested() == "auto"


def test_blocks_that_end_in_the_order_of_their_entry():
    first, second = keras_dynfilter.implementation("composite"), keras_dynfilter.implementation("native")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert requested() == "native"
    second.__exit__(None, None, None)
    assert requested() == "auto"


def test_exit_stacks_and_decorators():
    @keras_dynfilter.implementation("composite")
    def decorated():
        return requested()

    with contextlib.ExitStack() as stack:
        stack.enter_context(keras_dynfilter.implementation("native"))
        assert (decorated(), requested()) == ("composite", "native")
    assert requested() == "auto"


def test_tasks_that_take_turns():
    """Two tasks are inside their blocks at the same time, and a task that started before them sees neither."""

    async def task(name, mine, other):
        with keras_dynfilter.implementation(name):
            mine.set()
            await other.wait()
            return requested()

    async def outside(*events):
        for event in events:
            await event.wait()
        return requested()

    async def main():
        events = asyncio.Event(), asyncio.Event()
        names = await asyncio.gather(
            outside(*events), task("composite", *events), task("native", *reversed(events)), outside(*events)
        )
        return names, requested()

    assert asyncio.run(main()) == (["auto", "composite", "native", "auto"], "auto")


def test_a_task_keeps_the_request_of_its_creator():
    async def child():
        return requested()

    async def main():
        with keras_dynfilter.implementation("composite"):
            task = asyncio.create_task(child())
            in_a_thread = await asyncio.to_thread(requested)
        return await task, in_a_thread, requested()

    assert asyncio.run(main()) == ("composite", "composite", "auto")


def test_an_asynchronous_generator_that_another_task_closes():
    async def generator():
        with keras_dynfilter.implementation("composite"):
            yield requested()

    async def main():
        started = generator()
        names = [await started.__anext__()]
        await asyncio.create_task(started.aclose())
        return [*names, requested()]

    assert asyncio.run(main()) == ["composite", "auto"]


def test_functions_are_traced_in_the_context_of_the_call():
    """Autograph, `tf.cond` and the functions of a data set trace their bodies in the context of the caller."""
    names = []

    def note(value):
        names.append(requested())
        return value

    @tf.function
    def traced(value):
        return tf.cond(value > 0, lambda: note(value), lambda: note(-value))

    with keras_dynfilter.implementation("composite"):
        traced(tf.constant(1.0))
        tf.data.Dataset.range(2).map(note)
    assert set(names) == {"composite"} and len(names) >= 3


@scope.custom_gradient
def tripled(value):
    return 2 * value, lambda upstream: 3 * upstream


def gradient():
    value = tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch(value)
        result = tripled(value)
    return float(tape.gradient(result, value))


def test_inference_only_leaves_out_custom_gradients():
    assert gradient() == 3
    with scope.inference_only():
        assert gradient() == 2
        assert in_thread(gradient) == 3
    assert gradient() == 3


def test_inference_only_in_a_suspended_generator():
    def generator():
        with scope.inference_only():
            yield

    first, second = generator(), generator()
    next(first)
    next(second)
    first.close()
    assert gradient() == 2
    second.close()
    assert gradient() == 3
