# SPDX-License-Identifier: Apache-2.0
"""Runs many inputs of many targets, counts what came of them, and writes down the failures."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tests.fuzz import pool
from tests.fuzz.failures import FATAL, signature
from tests.fuzz.shrink import shrink
from tests.fuzz.targets import MODES, Mode

CORPUS = pathlib.Path(__file__).parent / "corpus"
ROUND = 600.0  # seconds after which a long run begins again with the first target
# Bytes that a worker may keep, beyond `Mode.growth` per input. The allocator of TensorFlow keeps the memory of freed
# tensors, so this is more than the largest tensors of one input have.
GROWTH = 1 << 30
SHRINKS, SLOW_SHRINKS = 150, 12  # largest numbers of inputs to shrink a failure, and one that ends the worker
DISTINCT = 8  # failures of a mode that are shrunk; a fault often appears under many texts


@dataclasses.dataclass
class Count:
    """Counts the inputs of a mode, and the seconds they took."""

    accepted: int = 0
    refused: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        return self.accepted + self.refused + self.failed


class Campaign:
    """Runs inputs and keeps what came of them.

    Args:
        seed: Seed of the inputs. An input depends on the seed, its mode and its number.
        modes: What to run.
        folder: Where to write the failures; the folder is made if it is needed.
        seconds: Limit of processor time for one input.
        show: Prints a line.
    """

    def __init__(
        self,
        seed: int,
        modes: Sequence[Mode] = MODES,
        folder: pathlib.Path = pathlib.Path("outputs/fuzz"),
        seconds: float = pool.SECONDS,
        show: Callable[[str], None] = print,
    ):
        self.seed, self.modes, self.folder, self.seconds, self.show = seed, modes, folder, seconds, show
        self.counts = {mode.label: Count() for mode in modes}
        self.failures: dict[str, dict] = {}
        self._next = dict.fromkeys(self.counts, 0)

    def run_corpus(self) -> None:
        """Runs the inputs of the corpus, which once failed or are at the limit of what is allowed."""
        for target, modes in self._targets():
            path = CORPUS / f"{target}.json"
            inputs = json.loads(path.read_text()) if path.exists() else []
            with pool.Worker(modes[0].module, self.seconds) as process:
                for mode in modes:
                    chosen = [value for value in inputs if value["mode"] == mode.name]
                    self._work(process, mode, {"inputs": chosen}, len(chosen))

    def run_calls(self, factor: float = 1.0) -> None:
        """Runs `Mode.calls` times `factor` inputs of every mode."""
        for _, modes in self._targets():
            with pool.Worker(modes[0].module, self.seconds) as process:
                for mode in modes:
                    process.forget_memory()
                    left = round(mode.calls * factor)
                    while left > 0:
                        left -= self._chunk(process, mode, min(left, mode.chunk))

    def run_minutes(self, minutes: float) -> None:
        """Runs inputs for a time, which the modes share as `Mode.share` says."""
        end = time.monotonic() + 60 * minutes
        while (left := end - time.monotonic()) > 1:
            self._run_round(min(left, ROUND))

    def _run_round(self, seconds: float) -> None:
        total = sum(mode.share for mode in self.modes)
        for target, modes in self._targets():
            with pool.Worker(modes[0].module, self.seconds) as process:
                for mode in modes:
                    process.forget_memory()
                    end = time.monotonic() + seconds * mode.share / total
                    done = 0
                    while time.monotonic() < end:
                        done += self._chunk(process, mode, mode.chunk)
                        if done >= mode.restart:
                            process.stop()
                            done = 0
            self.show(f"{target}: {sum(self.counts[mode.label].calls for mode in modes):,} calls")

    def _targets(self) -> Iterator[tuple[str, list[Mode]]]:
        for target in dict.fromkeys(mode.target for mode in self.modes):
            yield target, [mode for mode in self.modes if mode.target == target]

    def _chunk(self, process: pool.Worker, mode: Mode, count: int) -> int:
        """Runs the next inputs of a mode. Returns their number."""
        first = self._next[mode.label]
        request = {"mode": mode.name, "seed": self.seed, "first": first, "count": count}
        done = self._work(process, mode, request, count)
        self._next[mode.label] = first + done
        return done

    def _work(self, process: pool.Worker, mode: Mode, request: dict, count: int) -> int:
        """Runs a request to its end or to the death of the worker. Returns the number of inputs that ran."""
        if not count:
            return 0
        began = time.monotonic()
        result = process.run(request)
        counted = self.counts[mode.label]
        counted.seconds += time.monotonic() - began
        for name in ("accepted", "refused", "skipped"):
            setattr(counted, name, getattr(counted, name) + result[name])
        for failure in result["failures"]:
            counted.failed += 1
            self._record(mode, {"mode": mode.label, **failure}, is_small="inputs" in request)
        kept = process.resident - process.first_resident
        if process.process is not None and kept > GROWTH + mode.growth * process.calls:
            counted.failed += 1
            text = f"the worker keeps {kept >> 20} MiB after {process.calls} inputs"
            self._record(mode, {"mode": mode.label, "kind": "memory growth", "text": text, "input": {}})
            process.stop()
        return result["next"] - request.get("first", 0)

    def _record(self, mode: Mode, failure: dict, is_small: bool = False) -> None:
        """Shrinks an input that failed in a new way, and writes it down."""
        key = signature(failure)
        if key in self.failures:
            self.failures[key]["times"] += 1
            return
        number = sum(other["mode"] == mode.label for other in self.failures.values())
        self.failures[key] = {**failure, "times": 1}
        if failure["input"] and number < DISTINCT and not is_small:
            self.failures[key]["input"] = self._shrunk(mode, failure, failure["input"])
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{mode.label}-{len(self.failures)}.json"
        content = {"target": mode.target, **self.failures[key], "seed": self.seed}
        path.write_text(json.dumps(content, indent=1) + "\n")
        self.show(
            f"FAILED {mode.label}: {failure['kind']}: {failure['text'][:300]}\n  python -m tests.fuzz --replay {path}"
        )

    def _shrunk(self, mode: Mode, failure: dict, value: dict) -> dict:
        key = signature(failure)

        def fails(process: pool.Worker, smaller: dict) -> bool:
            found = process.run({"inputs": [smaller]})["failures"]
            return any(signature({"mode": mode.label, **other}) == key for other in found)

        # A part of the time limit shows that a smaller input is slow, too.
        with pool.Worker(mode.module, self.seconds / 4) as process:
            limit = SLOW_SHRINKS if failure["kind"] in FATAL else SHRINKS
            smaller = shrink(value, lambda smaller: fails(process, smaller), limit)
            process.stop()
            process.seconds = self.seconds
            # Otherwise it needs the full time, or what ran before it in the same process.
            return smaller if smaller is value or fails(process, smaller) else value

    def summary(self) -> str:
        """Returns a table of the counts, and the number of failures."""
        lines = [f"{'mode':24} {'calls':>10} {'accepted':>9} {'refused':>9} {'failed':>7} {'per second':>11}"]
        for label, count in self.counts.items():
            rates = [f"{part / max(count.calls, 1):9.1%}" for part in (count.accepted, count.refused)]
            rate = count.calls / max(count.seconds, 1e-9)
            lines.append(f"{label:24} {count.calls:10,} {rates[0]} {rates[1]} {count.failed:7,} {rate:11,.0f}")
        total = sum(count.calls for count in self.counts.values())
        failed = sum(count.failed for count in self.counts.values())
        lines.append(f"{total:,} calls, {failed:,} failures of {len(self.failures)} kinds, seed {self.seed}")
        return "\n".join(lines)


def replay(path: pathlib.Path, seconds: float = pool.SECONDS) -> list[dict]:
    """Runs the input of a failure again. Returns its failures."""
    content = json.loads(path.read_text())
    (module,) = {mode.module for mode in MODES if mode.target == content["target"]}
    with pool.Worker(module, seconds) as process:
        return process.run({"inputs": [content["input"]]})["failures"]


def chosen(names: Iterable[str]) -> list[Mode]:
    """Returns the modes with these names: `target` or `target.mode`."""
    return [mode for mode in MODES if mode.target in names or mode.label in names]
