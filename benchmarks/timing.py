# SPDX-License-Identifier: Apache-2.0
"""Measures the time, the memory and the bandwidth of a call."""

import concurrent.futures
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from examples.experiments.core.environment import cores


def _enable_allocator_statistics():
    """Enables the statistics of TensorFlow's CPU allocator. Call it before TensorFlow allocates for the first time.

    TensorFlow has no Python function for this. Returns whether it worked.
    """
    try:
        library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2"))
        library._ZN3tsl23EnableCPUAllocatorStatsEv()  # tsl::EnableCPUAllocatorStats()
        tf.config.experimental.get_memory_info("CPU:0")
    except (OSError, AttributeError, ValueError):
        return False
    return True


CPU_STATISTICS = _enable_allocator_statistics()


def median_ms(call: Callable, budget: float = 0.8, min_calls: int = 5, max_calls: int = 60) -> float:
    """Returns the median milliseconds of `call()`, after two calls to warm up.

    Args:
        call: Function without arguments.
        budget: Approximate number of seconds to spend, which determines the number of calls.
        min_calls: Smallest number of calls.
        max_calls: Largest number of calls.
    """
    call()
    begin = time.perf_counter()
    call()
    count = int(np.clip(budget / max(time.perf_counter() - begin, 1e-6), min_calls, max_calls))
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def in_turns(calls: Mapping[str, Callable], budget: float = 3.0, rounds: int = 5) -> dict[str, float]:
    """Returns the milliseconds of several calls by name. Each number is the median of `rounds` medians.

    Each round measures all calls, one after the other. On a shared machine, the speed may change more over time than it
    differs between the calls; measured in turns, all calls are affected by the change.

    Args:
        calls: Functions without arguments, by name.
        budget: Approximate number of seconds to spend on each call.
        rounds: Number of rounds.
    """
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(median_ms(call, budget=budget / rounds))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mb(call: Callable, device: str = "CPU:0") -> float | None:
    """Returns the peak number of megabytes that TensorFlow allocates during `call()`, including its result.

    On a CPU, TensorFlow does not fully count allocations below 256 kB. The function returns None if the statistics of
    the CPU allocator are not available.
    """
    if device.startswith("CPU") and not CPU_STATISTICS:
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
    return statistics.median(growth) / 1e6  # the median: memory of the previous call may be freed during a call


def copy_gb_per_s(megabytes: int = 512) -> float:
    """Returns the bandwidth of simultaneous copies on all cores: bytes read plus bytes written, in GB per second."""
    count = cores()
    size = megabytes * 2**20 // count
    sources = [np.ones(size, np.uint8) for _ in range(count)]
    destinations = [np.ones(size, np.uint8) for _ in range(count)]
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        ms = median_ms(lambda: list(pool.map(np.copyto, destinations, sources)), min_calls=10)
    return 2 * size * count / ms / 1e6
