"""What devices send to each other in a training step, axis by axis of the mesh, and how long that takes.

With V the bytes of an array that a device is left with, and n devices along an axis, each device sends

    V (n - 1) / n       to gather it from its parts (all-gather), or to sum it into parts (reduce-scatter)
    2 V (n - 1) / n     to sum it whole (all-reduce: both, one after the other)

A step does, in each of its microbatches:

    data     all-reduce of the gradients, as far as they are on a device
    fsdp     all-gather of the sharded weights, forward and backward; reduce-scatter of their gradients; all-reduce of the rest
    tensor   of each block, all-reduce of what leaves time mix and channel mix (again where remat="blocks"); backward of the
             gradients of their four split inputs

Reconstruction tokens are projected once for all images. Their gradients are summed over images before they are multiplied,
three arrays of a block beside the gradients; and where weights are sharded the compiler sums the projections themselves too,
rather than gather the weights for so few tokens. Scalars are left out.

`data` may cross slices: then arrays are summed into parts inside of a slice, the parts across slices, and gathered again, so
that V / w go over the network with w devices of the axis in a slice. On a torus the axes of the mesh share a chip's links.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from sdit_jax import sharding
from sdit_jax.costs.arithmetic import tokens
from sdit_jax.costs.chips import Chip
from sdit_jax.models import SDiT

TIMES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}
FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Collective:
    """All calls of one kind over one axis in a step: `bytes` of the whole arrays, V."""

    axis: str
    kind: str
    what: str
    bytes: float

    def sent(self, devices: int) -> float:
        """Bytes that each of so many devices along the axis sends."""
        return TIMES[self.kind] * self.bytes * (devices - 1) / devices


def collectives(model: SDiT, params: Any, mesh: Mesh | AbstractMesh, images: int, microbatches: int = 1) -> list[Collective]:
    """Of a step in which each device works on `images`; `params` may be abstract."""
    fsdp, tensor, blocks, L = mesh.shape["fsdp"], mesh.shape["tensor"], model.depth + 1, tokens(model)
    itemsize = jnp.dtype(model.dtype).itemsize
    sharded = whole = 0
    for leaf, layout in zip(jax.tree.leaves(params), jax.tree.leaves(sharding.shardings(mesh, params)), strict=True):
        part = leaf.dtype.itemsize * math.prod(layout.shard_shape(leaf.shape))
        sharded, whole = (sharded + fsdp * part, whole) if "fsdp" in layout.spec else (sharded, whole + part)
    projected = 3 * blocks * (L - 1) * model.width * itemsize if model.reconstruction else 0
    common = projected / tensor

    own, joined = (L + 1, 2 * L) if model.reconstruction else (L, L)
    array, forward = model.width * images / microbatches, 2 if model.remat == "blocks" else 1
    summed = FLOAT32 * blocks * array * (forward * 2 * joined + joined + 3 * own)
    in_each = [
        Collective("data", "all-reduce", "gradients", sharded / fsdp + whole + common),
        Collective("fsdp", "all-gather", "weights, forward and backward", 2 * sharded),
        Collective("fsdp", "reduce-scatter", "gradients of sharded weights", sharded),
        Collective("fsdp", "all-reduce", "other gradients, and projected tokens", whole + common * (1 + forward)),
        Collective("tensor", "all-reduce", "activations and their gradients", summed + projected),
    ]
    return [dataclasses.replace(each, bytes=microbatches * each.bytes) for each in in_each]


def seconds(collective: Collective, sizes: Mapping[str, int], slices: int, chip: Chip) -> float:
    """At the chip's stated rates, on a mesh of these sizes in so many slices, of which `data` alone crosses the borders."""
    across = slices if collective.axis == "data" else 1
    within = sizes[collective.axis] // across
    inside = {axis: size // slices if axis == "data" else size for axis, size in sizes.items()}
    sharing = sum(size > 1 for size in inside.values()) if chip.torus else 1
    took = collective.sent(within) * sharing / chip.links if within > 1 else 0.0
    if across > 1:
        assert chip.network, f"{chip.name} has no network between slices"
        took += dataclasses.replace(collective, bytes=collective.bytes / within).sent(across) / chip.network
    return took
