# SPDX-License-Identifier: Apache-2.0
"""Calls the raw op ProjectAndPool eagerly and compiled by XLA."""

import random

import numpy as np
import tensorflow as tf

from tests.fuzz import fast_reference, problems, tensorflow_calls
from tests.fuzz.failures import Failure, Skipped, check_text

setup, clean = tensorflow_calls.setup, tensorflow_calls.clean
NAMES = ("inputs", "kernel", "bias")


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    pick = random.choice
    value = {
        "dtype": pick(problems.DTYPES),
        "image": [pick((0, 1, 1, 2, 3)), pick((0, 1, 2, 5, 9)), pick((1, 3, 7, 16)), pick((0, 1, 3, 8, 9, 17, 40))],
        "outputs": pick((0, 1, 2, 9, 17)),
        "values": random.randrange(1 << 16),
    }
    if random.random() < 0.05:
        value["image"][random.randrange(4)] = pick(problems.LARGE_SIZES)
        value["image"][random.randrange(4)] = 0
    if random.random() < 0.3:
        shape = [pick((0, 1, 2, 3, 9)) for _ in range(random.randrange(6))]
        value["changes"] = [pick(([pick(NAMES), "shape", shape], [pick(NAMES), "dtype", pick(problems.DTYPES)]))]
    if random.random() < 0.1:
        value["special"] = [pick(NAMES), random.randrange(1 << 16), pick([*problems.SPECIAL])]
    return value


def run(value: dict) -> bool:
    image, outputs = value["image"], value["outputs"]
    if len(image) != 4:
        raise Skipped("no image")
    shapes = {"inputs": image, "kernel": [image[3], outputs], "bias": [outputs]}
    dtypes = dict.fromkeys(NAMES, value["dtype"])
    for name, kind, change in value.get("changes", ()):
        (shapes if kind == "shape" else dtypes)[name] = change
    given, exact = _arrays(value, shapes, dtypes)
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    correct = (
        len(set(dtypes.values())) == 1
        and [len(shapes[name]) for name in NAMES] == [4, 2, 1]
        and shapes["kernel"] == [shapes["inputs"][3], shapes["bias"][0]]
    )

    def compute(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple:
        return tuple(
            tensorflow_calls.loaded.ops.keras_dynfilter_project_and_pool(inputs=inputs, kernel=kernel, bias=bias)
        )

    if value["mode"] == "jit":
        compute = tf.function(compute, autograph=False, jit_compile=True)
    try:
        results = compute(**given)
    except tensorflow_calls.REFUSALS as error:
        large = isinstance(error, tf.errors.ResourceExhaustedError) or largest >= 2**16
        if correct and not large:
            raise Failure("wrong decision", f"a correct call was refused: {type(error).__name__}: {error}") from error
        check_text(error, NAMES, tensorflow_calls.FOREIGN)
        return False
    if not correct:
        raise Failure("wrong decision", "a call was accepted that is not correct")
    if largest < 2**16:
        for actual, (expected, scale, terms) in zip(results, fast_reference.project_and_pool(*exact.values())):
            fast_reference.compare(actual.numpy(), expected, scale, terms, value["dtype"])
    return True


def _arrays(value: dict, shapes: dict, dtypes: dict) -> tuple[dict, dict]:
    given, exact = {}, {}
    for index, (name, shape) in enumerate(shapes.items()):
        count = int(np.prod([*map(float, shape)]))
        if count > 1 << 22 or min(shape, default=0) < 0:
            raise Skipped("the operand is too large")
        try:
            array = problems.numbers(value["values"] + 7919 * index, count).reshape(shape).copy()
        except ValueError as error:
            raise Skipped(str(error)) from error
        if "special" in value and value["special"][0] == name and count:
            array.reshape(-1)[value["special"][1] % count] = problems.SPECIAL[value["special"][2]]
        given[name], exact[name] = array.astype(problems.numpy_dtype(dtypes[name])), array
    return {name: tensorflow_calls.tensor(array) for name, array in given.items()}, exact
