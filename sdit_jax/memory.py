"""Free memory; and an allocator setting for XLA on CPUs, which allocates its buffers anew at every step.

By default glibc maps every large buffer and unmaps it when it is freed. The page faults of fresh buffers then take a tenth of
a training step or more (docs/performance.md).
"""

import ctypes
import re
from pathlib import Path
from typing import Any

# From glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Makes glibc keep freed memory: large buffers come from one heap that never shrinks. Returns False without glibc.

    Call it before any thread starts: it limits malloc to its main arena, the only one that can hold large buffers.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)))


def free(device: Any) -> int | None:
    """Bytes that programs may still take: of an accelerator its own, of a CPU those of the system; None where not known."""
    found = device.memory_stats() if device.platform != "cpu" else None
    if found and "bytes_limit" in found:
        return found["bytes_limit"] - found["bytes_in_use"]
    system = Path("/proc/meminfo")
    if device.platform != "cpu" or not system.exists():
        return None
    return int(re.findall(r"MemAvailable: +(\d+) kB", system.read_text())[0]) * 1024
