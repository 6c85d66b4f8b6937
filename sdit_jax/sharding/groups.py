"""Functions that each group of devices along `data` computes from its own rows of a batch, whose results are averaged once.

Left to itself, the compiler sums over `data` wherever a product sums over images: in every microbatch. Within `averaged` the
axis is manual, so that nothing crosses it before the end; `fsdp` and `tensor` are the compiler's as elsewhere.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from sdit_jax.sharding.layout import ACTIVATIONS
from sdit_jax.sharding.mesh import BATCH

AXIS = "data"
# The index of this group and the number of groups, while a function is traced within `averaged`.
_group: ContextVar[tuple[jax.Array, int] | None] = ContextVar("group", default=None)


def averaged(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """(whole, rows) -> the means over groups of function(whole, rows of the group)."""
    rules = [(name, tuple(axis for axis in BATCH if axis != AXIS) if axes == BATCH else axes) for name, axes in ACTIVATIONS]

    def of_group(index, whole, rows):
        token = _group.set((index[0], mesh.shape[AXIS]))
        try:
            with nn.logical_axis_rules(rules):
                return jax.lax.pmean(function(whole, rows), AXIS)
        finally:
            _group.reset(token)

    rows = PartitionSpec(AXIS)
    call = jax.shard_map(
        of_group,
        mesh=mesh,
        in_specs=(rows, PartitionSpec(), rows),
        out_specs=PartitionSpec(),
        axis_names={AXIS},
        check_vma=False,
    )
    return lambda whole, rows: call(jnp.arange(mesh.shape[AXIS]), whole, rows)


def own_rows(draw: Callable[[int], jax.Array], rows: int) -> jax.Array:
    """draw(rows); within `averaged` the group's rows of what is drawn for all groups, which does not depend on the mesh."""
    group = _group.get()
    if group is None:
        return draw(rows)
    index, groups = group
    return jax.lax.dynamic_slice_in_dim(draw(groups * rows), index * rows, rows)
