"""Functions that devices compute from their own rows of a batch: each for itself, or groups along `data` for a mean.

Left to itself, the compiler sums over `data` wherever a product sums over images: in every microbatch. Within `averaged` that
axis is manual, so that nothing crosses it before the end; `fsdp` and `tensor` are the compiler's as elsewhere.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from sdit_jax.sharding.layout import ACTIVATIONS
from sdit_jax.sharding.mesh import BATCH, replicated

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


def by_rows(function: Callable, mesh: Mesh, split: Sequence[int], results: Any = None) -> Callable:
    """function(*arguments), of which each device computes its own rows, from its rows of the arguments at the places `split`.

    All devices get the whole arguments, and have the whole results. A device computes what one alone would compute of so many
    rows, to the bit. `results` are the specs of the results where `mesh.axis_names` do not split their first axis.
    """
    rows = PartitionSpec(mesh.axis_names)

    def call(*arguments):
        specs = tuple(rows if place in split else PartitionSpec() for place in range(len(arguments)))
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=results or rows, check_vma=False)
        return mapped(*arguments)

    return jax.jit(call, in_shardings=replicated(mesh), out_shardings=replicated(mesh))


def own_rows(draw: Callable[[int], jax.Array], rows: int) -> jax.Array:
    """draw(rows); within `averaged` the group's rows of what is drawn for all groups, which does not depend on the mesh."""
    group = _group.get()
    if group is None:
        return draw(rows)
    index, groups = group
    return jax.lax.dynamic_slice_in_dim(draw(groups * rows), index * rows, rows)
