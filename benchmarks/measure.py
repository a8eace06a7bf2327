# SPDX-License-Identifier: Apache-2.0
"""Time, memory and bandwidth of a call."""

import concurrent.futures
import ctypes
import os
import statistics
import time

import numpy as np
import psutil


def median_ms(call, budget=1.5, least=5, most=60):
    """Median milliseconds of `call()` over as many runs as fit into `budget` seconds, after two runs to warm up."""
    call()
    begin = time.perf_counter()
    call()
    runs = int(np.clip(budget / max(time.perf_counter() - begin, 1e-6), least, most))
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def peak_mb(call):
    """Megabytes by which the resident memory of the process grows at most during `call()`; None outside Linux."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that the heap keeps for reuse would hide what the call takes
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark
    except (OSError, AttributeError):
        return None
    before = psutil.Process().memory_info().rss
    call()
    with open("/proc/self/status") as file:
        mark = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return max(mark - before, 0) / 2**20


def copy_gb_per_s(megabytes=512):
    """Bytes read plus bytes written per second by copies on all cores at once."""
    cores = len(os.sched_getaffinity(0))
    size = megabytes * 2**20 // cores
    sources = [np.ones(size, np.uint8) for _ in range(cores)]
    targets = [np.ones(size, np.uint8) for _ in range(cores)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        ms = median_ms(lambda: list(pool.map(np.copyto, targets, sources)), least=10)
    return 2 * size * cores / ms / 1e6
