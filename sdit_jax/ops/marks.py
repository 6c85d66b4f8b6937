"""Marks in WKV and in neurons: elementwise programs, whose operations are counted by rule.

A mark is an equation of the traced program that `analysis.operations` reads; the compiler removes it.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

WKV, NEURONS = "wkv", "neurons"


def mark(x: jax.Array, kind: str, operations: int) -> jax.Array:
    """x itself, marked as an array for each element of which an operator does so many operations."""
    return checkpoint_name(x, f"{kind}:{operations}")


def read(name: str) -> tuple[str, int] | None:
    """(kind, operations per element) of a mark; None for another name."""
    kind, _, operations = name.partition(":")
    return (kind, int(operations)) if kind in (WKV, NEURONS) and operations else None
