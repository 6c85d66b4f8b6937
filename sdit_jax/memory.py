"""Freed memory stays with the process: XLA's CPU client asks for its buffers anew at every step.

By default glibc maps a large buffer when it is asked for and unmaps it when it is freed, so that every step of training meets
fresh pages, and their faults take a tenth of its time or more (docs/performance.md).
"""

import ctypes

# From glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Tells glibc to take large buffers from one heap that never shrinks; returns whether it did (elsewhere nothing happens).

    Call it before threads are started: it does without their arenas, since only the first one can hold large buffers.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)))
