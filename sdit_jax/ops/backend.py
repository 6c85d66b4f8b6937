"""The backend that programs are traced for: some operators have a form for CPUs and another for accelerators."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_assumed: ContextVar[str | None] = ContextVar("assumed", default=None)


def backend() -> str:
    """JAX's default backend, or the one that is `assumed`."""
    return _assumed.get() or jax.default_backend()


@contextmanager
def assumed(name: str) -> Iterator[None]:
    """While it lasts, programs are traced as for another backend ("gpu", "tpu"), to be counted and not run."""
    token = _assumed.set(name)
    try:
        yield
    finally:
        _assumed.reset(token)
