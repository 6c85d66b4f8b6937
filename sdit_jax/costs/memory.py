"""Bytes that one device holds in a training step.

The state is what its layout (`sharding.shardings`) leaves on a device. What autodiff keeps for the backward pass is exact: the
residuals of the traced loss (`jax.vjp`) for one device's microbatch, so that dtypes and rematerialisation count as they are.
With R those residuals, R_none what they would be without rematerialisation, and N blocks,

    kept       = FUSED R           and R where blocks stand in a loop, which must store what it hands on
    transient  = (R_none - R) / N + BACKWARD R_none / N        what the block at work computes anew, and its gradients
                 + its gathered weights and their gradient, where these are sharded

Two numbers are not counted but fitted to what XLA allocates on CPU for the network of MNIST, at widths 64 and 384, 5 and 17
blocks: FUSED, since the compiler does not store what it can fuse into its reader, and BACKWARD.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.sharding import AbstractMesh, Mesh

from sdit_jax import sharding
from sdit_jax.diffusion.objective import Objective
from sdit_jax.models import SDiT
from sdit_jax.models.sdit import MAX_UNROLL
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import loss_terms, noised

FUSED, BACKWARD = 0.8, 0.75


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. `gradients` counts the accumulated ones too, where there are microbatches."""

    parameters: int
    ema: int
    optimizer: int
    gradients: int
    kept: int
    transient: int

    @property
    def state(self) -> int:
        return self.parameters + self.ema + self.optimizer

    @property
    def total(self) -> int:
        return self.state + self.gradients + self.kept + self.transient


def memory(
    model: SDiT, objective: Objective, state: TrainState, mesh: Mesh | AbstractMesh, images: int, microbatches: int = 1
) -> Memory:
    """Of one device of the mesh, which works on `images` a step in `microbatches`; `state` may be abstract."""
    fsdp, tensor, blocks = mesh.shape["fsdp"], mesh.shape["tensor"], model.depth + 1
    layout = sharding.shardings(mesh, state)
    parameters = on_device(state.params, layout.params)

    def residuals_of(remat):
        return residuals(model.clone(remat=remat), objective, state.params, images // microbatches, tensor)

    R = residuals_of(model.remat)
    R_none = R if model.remat == "none" else residuals_of("none")
    looped = model.remat != "none" or model.depth // 2 > MAX_UNROLL
    fused = 1 if looped else FUSED
    gathered = 2 * fsdp * parameters / blocks if fsdp > 1 else 0
    return Memory(
        parameters,
        on_device(state.ema, layout.ema),
        on_device(state.optimizer, layout.optimizer),
        gradients=parameters * (1 + (microbatches > 1)),
        kept=round(fused * R),
        transient=round((R_none - R + fused * BACKWARD * R_none) / blocks + gathered),
    )


def on_device(tree: Any, layout: Any) -> int:
    """Bytes of one device's parts of abstract arrays."""
    parts = jax.tree.map(lambda leaf, to: math.prod(to.shard_shape(leaf.shape)) * leaf.dtype.itemsize, tree, layout)
    return sum(jax.tree.leaves(parts))


def residuals(model: SDiT, objective: Objective, params: Any, images: int, tensor: int = 1) -> int:
    """Bytes that autodiff keeps between the loss of some images and its gradient, besides parameters and images.

    With tensor parallelism only arrays four times as wide as the network are counted as split: an upper bound.
    """
    size = model.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((images, size, size, model.channels), jnp.uint8),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32),
    }
    examples = jax.eval_shape(lambda batch: noised(objective, batch, jax.random.key(0)), batch)

    def backward(params, examples):
        return jax.vjp(lambda p: loss_terms(model, objective, p, examples, jax.random.key(0)), params, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(backward)(params, examples).jaxpr
    found = {variable for variable in jaxpr.outvars if not isinstance(variable, Literal)} - set(jaxpr.invars)

    def bytes_of(array):
        split = tensor if array.shape and array.shape[-1] == 4 * model.width else 1
        return array.size * array.dtype.itemsize // split

    return sum(bytes_of(variable.aval) for variable in found)
