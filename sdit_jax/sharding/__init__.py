"""Processes find each other, devices form a mesh, arrays are laid out on it."""

from sdit_jax.sharding.groups import averaged, by_rows, own_rows
from sdit_jax.sharding.layout import Layout, constrained, describe, on_mesh, shardings
from sdit_jax.sharding.mesh import batch_sharding, check_batch_size, local, make_mesh, put_batch, replicated, rows
from sdit_jax.sharding.parts import on_parts

__all__ = [
    "Layout", "averaged", "batch_sharding", "by_rows", "check_batch_size", "constrained", "describe", "local", "make_mesh",
    "on_mesh", "on_parts", "own_rows", "put_batch", "replicated", "rows", "shardings",
]  # fmt: skip
