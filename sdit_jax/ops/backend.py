"""The platform that programs are traced for: some operators have a form for CPUs, another for TPUs, and one for GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_assumed: ContextVar[str | None] = ContextVar("assumed", default=None)


def backend() -> str:
    """ "cpu", "gpu" or "tpu": that of the devices that a program is compiled for, where they are known while it is traced.

    It is the one that is `assumed`, or that of the devices of the current mesh; else JAX's default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return _assumed.get() or (device.platform if device is not None else jax.default_backend())


@contextmanager
def assumed(name: str) -> Iterator[None]:
    """While it lasts, programs are traced for devices of that platform, which need not be at hand."""
    token = _assumed.set(name)
    try:
        yield
    finally:
        _assumed.reset(token)
