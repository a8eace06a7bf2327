# SPDX-License-Identifier: Apache-2.0
"""A target with planted faults, for the tests of the machinery: every kind of failure, each for some inputs."""

import os
import random
import signal

from tests.fuzz.failures import Failure, Skipped, check_text

_kept: list = []


def setup() -> None:
    pass


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    return {"numbers": [random.randrange(1000) for _ in range(random.randint(3, 8))]}


def run(value: dict) -> bool:
    numbers, mode = value["numbers"], value["mode"]
    high = [number for number in numbers if number > 900]
    if mode == "keeps":
        _kept.append(bytearray(os.urandom(1 << 10) * (8 << 10)))  # 8 MiB
        return True
    if not high:
        if sum(numbers) % 3 == 0:
            raise Skipped("sum")
        return sum(numbers) % 3 == 1
    if mode == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "hangs":
        while True:
            pass
    if mode == "allocates":
        bytearray(1 << 40)
    if mode == "differs":
        raise Failure("wrong value", f"{len(high)} numbers are off")
    if mode == "mumbles":
        check_text(ValueError(f"bad number {high[0]}"), ["numbers"])
    return False
