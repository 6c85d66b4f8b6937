"""What the processes of a run agree on; with one process, what it says."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdit_jax.errors import InputError
from sdit_jax.sharding.processes import wait_for_all

LONGEST = 1000  # Bytes of a message.


def all_of(found: bool) -> bool:
    """Whether every process has found it; all of them must ask."""
    if jax.process_count() == 1:
        return found
    return bool(multihost_utils.process_allgather(np.int32(found)).all())


@contextmanager
def together(point: str) -> Iterator[None]:
    """An InputError of one process within it is raised in all of them, which wait for each other at its end.

    Within it they must not communicate. `point` is what comes after it, in the line of a process that waits.
    """
    message = ""
    try:
        yield
    except InputError as error:
        if jax.process_count() == 1:
            raise
        message = str(error)
    if jax.process_count() == 1:
        return
    wait_for_all(point)
    own = np.frombuffer(message.encode()[:LONGEST].ljust(LONGEST), np.uint8)
    said = [bytes(line).decode(errors="replace").strip() for line in np.asarray(multihost_utils.process_allgather(own))]
    for process, line in enumerate(said):
        if line:
            raise InputError(message or f"process {process}: {line}")
