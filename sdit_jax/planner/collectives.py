"""What devices send to each other in a training step, per axis of the mesh, and how long that takes.

With V the bytes of an array that a device is left with, and n devices along an axis, each device sends

    V (n - 1) / n       to gather it from its parts (all-gather), or to sum it into parts (reduce-scatter)
    2 V (n - 1) / n     to sum it whole (all-reduce: both, one after the other)

In a step,

    data     all-reduce of the gradients, as far as they are on a device, once also with microbatches

and in each microbatch,

    fsdp     all-gather of the sharded weights, forward and backward; reduce-scatter of their gradients; all-reduce of the rest
    tensor   all-reduce of the result of every product over an axis that is split, forward, recomputed and backward

Weights are gathered in the dtype that products round them to, `gathered` bytes each: on TPUs bfloat16, also where JAX's default
precision multiplies float32. The TPU compiler gathers some of them in float32 none the less (docs/plan.md).

Products of parameters alone, the same for all images (projected tokens), are multiplied once. Their gradients are summed over
the images before they are multiplied further, so they are sent beside those of the parameters; and where weights are sharded,
the compiler sums the products themselves too, rather than gather the weights for so few tokens. Scalars are left out.

`data` may cross slices: then arrays are summed into parts inside of a slice, the parts across slices, and gathered again, so
that V / w go over the network with w devices of the axis in a slice. On a torus the axes of the mesh share a chip's links.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from sdit_jax import sharding
from sdit_jax.analysis.chips import Chip
from sdit_jax.analysis.dataflow import TENSOR
from sdit_jax.analysis.operations import Program
from sdit_jax.sharding import Layout

TIMES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}


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


def collectives(
    program: Program, params: Any, layout: Layout, mesh: Mesh | AbstractMesh, microbatches: int = 1, gathered: int = 4
) -> list[Collective]:
    """Of a step with this `arithmetic.training_program`; `params` may be shapes."""
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    sharded = whole = 0
    for leaf, to in zip(jax.tree.leaves(params), jax.tree.leaves(sharding.shardings(mesh, params, layout)), strict=True):
        part = leaf.dtype.itemsize * math.prod(to.shard_shape(leaf.shape))
        sharded, whole = (sharded + fsdp * part, whole) if "fsdp" in to.spec else (sharded, whole + part)

    def results(chosen):
        """Bytes of the results of some products in all runs; on a device, of those that are split."""
        split = lambda array: tensor if TENSOR in array.axes else 1
        sizes = [each.runs * each.result.size * np.dtype(each.result.dtype).itemsize / split(each.result) for each in chosen]
        return sum(sizes)

    common = [operation for operation in program.operations if operation.is_common and operation.phase != "backward"]
    gradients_of_common = results(operation for operation in common if operation.phase == "forward")
    return [
        Collective("data", "all-reduce", "gradients", sharded / fsdp + whole + gradients_of_common * (microbatches == 1)),
        Collective("fsdp", "all-gather", "weights, forward and backward", microbatches * 2 * sharded * gathered / 4),
        Collective("fsdp", "reduce-scatter", "gradients of sharded weights", microbatches * sharded),
        Collective(
            "fsdp", "all-reduce", "other gradients, and products of parameters",
            microbatches * whole + gradients_of_common + results(common),
        ),
        Collective(
            "tensor", "all-reduce", "activations and their gradients",
            results(operation for operation in program.operations if TENSOR in operation.summed),
        ),
    ]  # fmt: skip


def seconds(collective: Collective, sizes: Mapping[str, int], slices: int, chip: Chip) -> float:
    """At the chip's stated rates, on a mesh of these sizes in so many slices, whose borders only `data` crosses."""
    across = slices if collective.axis == "data" else 1
    within = sizes[collective.axis] // across
    inside = {axis: size // slices if axis == "data" else size for axis, size in sizes.items()}
    sharing = sum(size > 1 for size in inside.values()) if chip.torus else 1
    took = collective.sent(within) * sharing / chip.links if within > 1 else 0.0
    if across > 1:
        assert chip.network, f"{chip.name} has no network between slices"
        took += dataclasses.replace(collective, bytes=collective.bytes / within).sent(across) / chip.network
    return took
