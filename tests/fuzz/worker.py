# SPDX-License-Identifier: Apache-2.0
"""Runs inputs of a target in a process of its own: `python -m tests.fuzz.worker MODULE ...`, started by `pool.py`.

The process reads requests from standard input, one JSON object per line, and writes replies to a pipe. Before each
input it writes its progress to shared memory, so that the parent process knows at which input it died.
"""

import argparse
import faulthandler
import gc
import importlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any

from tests.fuzz.failures import Failure, Skipped

PROGRESS = struct.Struct("<qqqq")  # index of the current input, and the accepted, refused and skipped inputs before it
REPEATED = 4096  # seeds of the numbers that repeat
PAGE = resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module", help="the target")
    parser.add_argument("--replies", type=int, help="descriptor of the pipe for the replies")
    parser.add_argument("--progress", help="file of the progress")
    parser.add_argument("--seconds", type=float, help="limit of processor time for one input")
    parser.add_argument("--memory", type=int, help="bytes of address space beyond those of the idle process")
    args = parser.parse_args()
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGPROF, all_threads=False, chain=True)  # then the default action ends the process
    with open(args.progress, "r+b") as file:
        progress = mmap.mmap(file.fileno(), PROGRESS.size)
    replies = os.fdopen(args.replies, "w")
    target = importlib.import_module(args.module)
    target.setup()
    gc.collect()
    gc.freeze()
    # Not RLIMIT_DATA: then small allocations of TensorFlow fail, and its allocator keeps a lock.
    limit = _pages(0) * PAGE + args.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        for reply in _serve(target, json.loads(line), progress, args.seconds):
            print(json.dumps(reply), file=replies, flush=True)


def draw(target: Any, mode: str, seed: int, index: int) -> dict:
    """Draws an input, which depends on the arguments only."""
    generator = random.Random(f"{seed} {mode} {index}")
    repeated = random.Random(f"{seed} {mode} {generator.randrange(REPEATED)} repeated")
    value = target.draw(generator, repeated, mode)
    return {"mode": mode, **value}


def _serve(target: Any, request: dict, progress: mmap.mmap, seconds: float) -> Iterator[dict]:
    """Runs the inputs of a request. Yields failures when they happen, and a summary at the end."""
    if "draw" in request:
        yield {"done": True, "input": draw(target, request["mode"], request["seed"], request["draw"])}
        return
    inputs, first = request.get("inputs"), request.get("first", 0)
    counts = {"accepted": 0, "refused": 0, "skipped": 0}
    count = request["count"] if inputs is None else len(inputs)
    for index in range(first, first + count):
        PROGRESS.pack_into(progress, 0, index, *counts.values())
        signal.setitimer(signal.ITIMER_PROF, seconds)
        value = None
        try:
            value = draw(target, request["mode"], request["seed"], index) if inputs is None else inputs[index - first]
            counts["accepted" if target.run(value) else "refused"] += 1
        except Skipped:
            counts["skipped"] += 1
        except Failure as failure:
            yield {"input": value, "kind": failure.kind, "text": failure.text}
        except Exception as error:
            yield {"input": value, "kind": "unclear text", "text": f"{type(error).__name__}: {error}"}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    getattr(target, "clean", gc.collect)()
    yield {"done": True, **counts, "resident": _pages(1) * PAGE}


def _pages(field: int) -> int:
    """Returns the pages of resident memory (1) or of private writable memory (5) of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field])


if __name__ == "__main__":
    main()
