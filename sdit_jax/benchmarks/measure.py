"""Timing of compiled functions, and the machine they ran on."""

import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
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
    return _summary(times)


def in_turn(functions: Mapping[str, Callable], inputs: Iterator[tuple], runs: int, warmup: int = 2) -> dict[str, dict]:
    """`seconds` of several functions, called in turn, so that other load on the machine affects all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(warmup + runs):
        for name, function in functions.items():
            took = seconds(function, inputs, runs=1, warmup=0)["median_s"]
            if run >= warmup:
                times[name].append(took)
    return {name: _summary(taken) for name, taken in times.items()}


def _summary(times):
    return {"median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times), "runs": len(times)}


def rates(dtype: str = "float32") -> dict:
    """Peak rates of this machine: FLOPs per second of a large matrix product, bytes per second of a large copy.

    The product is summed in float32, without which XLA's CPU compiler does not use matrix units.
    """
    n = 2048 if jax.default_backend() == "cpu" else 8192
    keys = [jax.random.key(i) for i in range(3)]
    matrices = [(jax.random.normal(key, (n, n), dtype), jax.random.normal(key, (n, n), dtype)) for key in keys]
    product = seconds(jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32)), rotating(*matrices), runs=10)
    arrays = [(jax.random.normal(key, (16, 1024, 1024), dtype),) for key in keys]
    copy = seconds(jax.jit(lambda x: 2 * x), rotating(*arrays), runs=20)
    moved = 2 * arrays[0][0].size * arrays[0][0].dtype.itemsize
    return {
        "dtype": dtype, "matmul_n": n, "flops_per_s": 2 * n**3 / product["median_s"],
        "copy_bytes": moved, "bytes_per_s": moved / copy["median_s"],
    }  # fmt: skip


def rotating(*choices: tuple) -> Iterator[tuple]:
    """The given inputs in turn, without end, so that no run has the arrays of the run before in its cache."""
    while True:
        yield from choices


def machine() -> dict:
    """The machine: processor, cores, memory, device, versions."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "environment": {name: os.environ[name] for name in ("XLA_FLAGS", "GLIBC_TUNABLES") if name in os.environ},
    }


def _processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
