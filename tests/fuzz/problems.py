# SPDX-License-Identifier: Apache-2.0
"""Draws calls of raw ops: a correct call, and changes that may make it incorrect.

The sizes of a call are stored once, and the shapes of its operands follow from them. A smaller size therefore makes a
smaller call that is as consistent as before, which is what `shrink.py` needs.
"""

import dataclasses
import math
import random
from typing import Any

import numpy as np

from tests.fuzz import rules
from tests.fuzz.failures import Skipped, unlimited_memory

DTYPES = ("float32", "float64", "float16", "bfloat16")
NUMBERS = (0, -1, 2, 3, 4, 5, 64, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**62 + 1, 2**63 - 1, -(2**63), 2**30 - 1)
LARGE_SIZES = (2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**46, 2**62)
SPECIAL = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-0": -0.0}
WORK = 60_000  # largest number of products of a call that is drawn
_POOL = np.clip(np.round(16 * np.random.default_rng(0).standard_normal(1 << 17)), -64, 64) / 16


@dataclasses.dataclass
class Call:
    """A call of a raw op.

    Attributes:
        raw_op: The op.
        attributes: By name.
        dtypes: Operand -> dtype.
        shapes: Operand -> shape.
        input_size: The values of the operand `input_size`, or None.
        geometry: The sizes, or None if the op has to refuse the call.
        reason: Why the op has to refuse the call.
        value: The input that this call was made from.
    """

    raw_op: Any
    attributes: dict
    dtypes: dict
    shapes: dict
    input_size: list | None
    geometry: rules.Geometry | None
    reason: str
    value: dict

    @property
    def is_correct(self) -> bool:
        return self.geometry is not None

    @property
    def dtype(self) -> str:
        return next(dtype for operand, dtype in self.dtypes.items() if operand != "input_size")

    def names(self) -> list[str]:
        """Returns the names of all arguments of the op."""
        return [*self.raw_op.inputs.values(), *self.raw_op.attributes]


def draw(random: random.Random, repeated: random.Random, changed: float = 0.45, ops: tuple = tuple(rules.OPS)) -> dict:
    """Draws an input.

    Args:
        random: The source of randomness.
        repeated: The source for the op and its attributes. TensorFlow makes a kernel for every new combination of
            attributes, which takes ten times as long as a call.
        changed: Share of the calls with changes.
        ops: Names of ops.
    """
    name = repeated.choice(ops)
    raw_op = rules.OPS[name]
    value = {"op": name, "dtype": repeated.choice(DTYPES)}
    if "combine" in raw_op.attributes:
        value["combine"] = repeated.choice(raw_op.kinds)
    value["sizes"] = _sizes(random, _window(repeated))
    value["values"] = random.randrange(1 << 16)
    floating = [operand for operand in raw_op.inputs if operand != "input_size"]
    if random.random() < 0.2:
        value["special"] = [
            [random.choice(floating), random.randrange(1 << 16), random.choice([*SPECIAL])]
            for _ in range(random.randint(1, 3))
        ]
    elif random.random() < 0.1:
        value["scale"] = [random.choice(floating), random.choice([-130, -20, 12])]
    if random.random() < changed:
        value["changes"] = [_change(random, raw_op) for _ in range(random.choice((1, 1, 2, 3)))]
    return value


def _window(random: random.Random) -> dict:
    """Draws the attributes of a correct call."""
    pick = random.choice
    window = {
        "heads": pick((1, 1, 1, 2, 3, 4)),
        "kernel_h": pick((1, 3, 3, 5)) if random.random() < 0.95 else pick((7, 9, 13)),
        "kernel_w": pick((1, 3, 3, 5)) if random.random() < 0.95 else pick((7, 9, 13)),
        **{f"{name}_{side}": pick((1, 1, 2, 3)) for name in ("stride", "dilation") for side in "hw"},
        "padding": pick(("same", "valid")),
    }
    if random.random() < 0.05:
        window[pick(("stride_h", "stride_w", "dilation_h", "dilation_w"))] = pick((7, 100, 2**20, 2**30 - 1, 2**31 - 1))
    return window


def _sizes(random: random.Random, window: dict) -> dict:
    """Draws the sizes of a correct call with given attributes."""
    pick = random.choice
    taps = window["heads"] * window["kernel_h"] * window["kernel_w"]
    while True:
        sizes = {
            "batch": pick((1, 1, 2, 3, 0)) if random.random() < 0.9 else 0,
            "height": pick((1, 2, 3, 4, 5, 6, 7, 9)) if random.random() < 0.9 else pick((0, 12, 33)),
            "width": pick((1, 2, 3, 4, 5, 6, 8, 11)) if random.random() < 0.9 else pick((0, 17, 41)),
            "per_head": pick((1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 33)) if random.random() < 0.97 else 0,
        }
        if taps * math.prod(sizes.values()) <= WORK:
            break
    if random.random() < 0.06:  # tensors without elements and with large sizes
        for _ in range(random.randint(1, 3)):
            sizes[pick([*sizes])] = pick(LARGE_SIZES)
        sizes[pick([*sizes])] = 0
    return {**sizes, **window}


def _change(random: random.Random, raw_op: Any) -> list:
    pick = random.choice
    operand = pick([*raw_op.inputs])
    kind = pick(("attribute", "attribute", "size", "rank", "dtype", "shape", "input_size"))
    if kind == "attribute":
        name = pick(raw_op.attributes)
        choices = {"combine": ("max", "spatial"), "padding": ("full", "SAME")}
        return ["attribute", name, pick(choices.get(name, NUMBERS))]
    if kind == "size" or (kind == "input_size" and raw_op.wrt != "inputs"):
        return ["size", operand, random.randrange(4), pick((-1, 1, 2, -100))]
    if kind == "rank":
        return ["rank", operand, pick((-4, -3, -1, 1, 1, 4))]
    if kind == "dtype":
        return ["dtype", operand, pick(DTYPES)]
    if kind == "shape":
        return ["shape", operand, [pick((0, 1, 2, 3, 5, 9, 2**31)) for _ in range(random.randrange(6))]]
    return ["input_size", [pick((0, 1, 3, 5, -1, *NUMBERS[7:])) for _ in range(pick((2, 2, 2, 2, 1, 3, 0)))]]


def resolve(value: dict) -> Call:
    """Returns the call of an input."""
    raw_op, sizes = rules.OPS[value["op"]], value["sizes"]
    attributes = {name: sizes[name] for name in raw_op.attributes if name != "combine"}
    if "combine" in raw_op.attributes:
        attributes["combine"] = value["combine"]
    kernel, strides, dilation = ((sizes[f"{name}_h"], sizes[f"{name}_w"]) for name in ("kernel", "stride", "dilation"))
    heads = sizes["heads"] if "heads" in attributes else 1
    image = (sizes["batch"], sizes["height"], sizes["width"], sizes["per_head"] * heads)
    pad = tuple((k - 1) // 2 * d if sizes["padding"] == "same" else 0 for k, d in zip(kernel, dilation))
    size = tuple(rules.out_size(*axis) for axis in zip(image[1:3], kernel, strides, dilation, pad))
    made = rules.Geometry(image, size, kernel, strides, dilation, pad, heads, rules.kind_of(raw_op, attributes))
    shapes = {operand: list(made.shape(operand)) for operand in raw_op.inputs}
    dtypes = {operand: "int64" if operand == "input_size" else value["dtype"] for operand in raw_op.inputs}
    input_size = [*image[1:3]] if raw_op.wrt == "inputs" else None
    for change in value.get("changes", ()):
        input_size = _apply(change, attributes, shapes, dtypes, input_size)
    if any(size < 0 for shape in shapes.values() for size in shape):
        raise Skipped("a size is negative")
    if input_size is not None and len(shapes["input_size"]) == 1:
        shapes["input_size"] = [len(input_size)]
    return _checked(Call(raw_op, attributes, dtypes, shapes, input_size, None, "", value))


def _apply(change: list, attributes: dict, shapes: dict, dtypes: dict, input_size: list | None) -> list | None:
    kind, name, *rest = change
    if kind == "attribute":
        attributes[name] = rest[0]
    elif kind == "size" and shapes[name]:
        axis = rest[0] % len(shapes[name])
        shapes[name][axis] = max(0, shapes[name][axis] + rest[1])
    elif kind == "rank":
        shape = shapes[name]
        shapes[name] = shape[: rest[0]] if rest[0] < 0 else [1] * rest[0] + shape
    elif kind == "dtype" and name != "input_size":
        dtypes[name] = rest[0]
    elif kind == "shape" and name != "input_size":
        shapes[name] = rest[0]
    elif kind == "input_size":
        return name
    return input_size


def _checked(call: Call) -> Call:
    """Fills in the geometry, or the reason why the call is not correct."""
    floating = {dtype for operand, dtype in call.dtypes.items() if operand != "input_size"}
    if len(floating) > 1:
        call.reason = "dtypes differ"
        return call
    try:
        call.geometry = rules.check(call.raw_op, call.attributes, call.shapes, call.input_size)
    except rules.Incorrect as error:
        call.reason = str(error)
    return call


def numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(name)


def operands(call: Call) -> tuple[dict, dict]:
    """Returns the arrays of the operands in their dtypes, and in float64 after rounding to the dtype.

    Raises:
        Skipped: NumPy has no such array, or it is too large.
    """
    given, exact = {}, {}
    with unlimited_memory():
        for index, (operand, shape) in enumerate(call.shapes.items()):
            count = math.prod(shape)
            if count > 1 << 24:
                raise Skipped("the operand is too large")
            dtype = numpy_dtype(call.dtypes[operand])
            try:
                if operand == "input_size":
                    given[operand] = np.resize(np.array(call.input_size, dtype), shape)
                    continue
                offset = call.value["values"] + 7919 * index
                array = numbers(offset, count).reshape(shape)
                rounded = array.astype(dtype)
            except (ValueError, OverflowError) as error:  # too many bytes if sizes of zero are left out
                raise Skipped(str(error)) from error
            if "special" in call.value or "scale" in call.value:
                rounded, array = _changed(rounded, operand, call.value)
            given[operand], exact[operand] = rounded, array
    return given, exact


def numbers(offset: int, count: int) -> np.ndarray:
    """Returns normally distributed numbers that every dtype represents exactly."""
    offset %= len(_POOL)
    if offset + count <= len(_POOL):
        return _POOL[offset : offset + count]
    return np.resize(_POOL[offset:], count)


def _changed(array: np.ndarray, operand: str, value: dict) -> tuple[np.ndarray, np.ndarray]:
    """Puts special values into an operand, or scales it by a power of two."""
    array = array.copy()
    for name, place, special in value.get("special", ()):
        if name == operand and array.size:
            array.reshape(-1)[place % array.size] = SPECIAL[special]
    name, exponent = value.get("scale", (None, 0))
    if name == operand:
        with np.errstate(all="ignore"):
            array = (array.astype(np.float64) * 2.0**exponent).astype(array.dtype)
    return array, array.astype(np.float64)
