"""Timing compiled functions, and saying on what."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def seconds(function: Callable, inputs: Iterator[tuple], runs: int = 20, warmup: int = 2) -> dict[str, float]:
    """Median, least and greatest seconds of blocked calls after warm-up; every call gets the next inputs."""
    times = []
    for run in range(warmup + runs):
        arguments = next(inputs)
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        if run >= warmup:
            times.append(time.perf_counter() - start)
    return {"median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times), "runs": runs}


def rotating(*choices: tuple) -> Iterator[tuple]:
    """The given inputs in turn, without end, so that no run sees the arrays of the run before."""
    while True:
        yield from choices


def machine() -> dict:
    """What a number was measured on: processor, cores, memory, device, versions."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
