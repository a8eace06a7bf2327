# SPDX-License-Identifier: Apache-2.0
"""Time, memory and bandwidth of a call."""

import concurrent.futures
import ctypes
import os
import platform
import statistics
import time

import numpy as np
import tensorflow as tf


def _allocator_statistics():
    """Switches the statistics on; that takes effect only before TensorFlow allocates for the first time."""
    try:
        library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2"))
        library._ZN3tsl23EnableCPUAllocatorStatsEv()  # tsl::EnableCPUAllocatorStats()
        tf.config.experimental.get_memory_info("CPU:0")
    except (OSError, AttributeError, ValueError):
        return False
    return True


_STATISTICS = _allocator_statistics()


def median_ms(call, budget=0.8, least=5, most=60):
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


def in_turns(calls, budget=3.0, rounds=5):
    """`median_ms` of each of the calls by name, in turns and then the median, with `budget` seconds for each.

    On a shared machine, what changes between one call and the next is more than what they differ in.
    """
    found = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(median_ms(call, budget=budget / rounds))
    return {name: statistics.median(values) for name, values in found.items()}


def peak_mb(call, device="CPU:0"):
    """Megabytes that TensorFlow allocates on a device at most during `call()`, its result included.

    On a CPU, TensorFlow does not count allocations below 256 kB in full. None where the statistics of its CPU allocator
    cannot be had: no Python function switches them on.
    """
    if device.startswith("CPU") and not _STATISTICS:
        return None
    for _ in range(3):
        call()
    growth = []
    for _ in range(5):
        before = tf.config.experimental.get_memory_info(device)["current"]
        tf.config.experimental.reset_memory_stats(device)
        result = call()
        growth.append(tf.config.experimental.get_memory_info(device)["peak"] - before)
        del result
    return statistics.median(growth) / 1e6  # what the call before has left may be given back meanwhile


def verdict(met):
    """A word for whether a bar is met."""
    return "met" if met else "MISSED"


def cpu():
    """Name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def copy_gb_per_s(megabytes=512):
    """Bytes read plus bytes written per second by copies on all cores at once."""
    cores = len(os.sched_getaffinity(0))
    size = megabytes * 2**20 // cores
    sources = [np.ones(size, np.uint8) for _ in range(cores)]
    targets = [np.ones(size, np.uint8) for _ in range(cores)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        ms = median_ms(lambda: list(pool.map(np.copyto, targets, sources)), least=10)
    return 2 * size * cores / ms / 1e6
